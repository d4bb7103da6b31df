"""Train with SetFit's own library. `label_efficiency.py` runs this in an environment that has it.

Reads `given.json` in the folder that is named, and writes `found.json` there: the labels of the test texts, and the
seconds of training. The settings are the library's own defaults, but for one epoch, as its documentation has it, or
fewer steps where one would be too many.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path

BATCH = 16


def count_pairs(labels: list[str]) -> int:
    """Return the pairs of an epoch: as many alike as unlike ones, with those of a row with itself."""
    alike = sum(count * (count + 1) // 2 for count in Counter(labels).values())
    return 2 * max(alike, len(labels) * (len(labels) + 1) // 2 - alike)


def main() -> None:
    """Train and predict."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    folder = Path(sys.argv[1])
    given = json.loads((folder / "given.json").read_text(encoding="utf-8"))
    names = sorted(set(given["labels"]))
    model = SetFitModel.from_pretrained(given["base"], labels=names)
    rows = Dataset.from_dict({"text": given["texts"], "label": [names.index(label) for label in given["labels"]]})
    began = time.perf_counter()
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        num_epochs=1,
        max_steps=given["steps"] if count_pairs(given["labels"]) > BATCH * given["steps"] else -1,
        batch_size=BATCH,
        seed=given["seed"],
        report_to="none",
        save_strategy="no",
    )
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    seconds = time.perf_counter() - began
    found = {"labels": [str(label) for label in model.predict(given["test"])], "seconds": seconds}
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
