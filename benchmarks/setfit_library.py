"""Train with SetFit's own library. `label_efficiency.py` runs this in an environment that has it.

Reads `given.json` in the folder that is named, and writes `found.json` there: the labels of the test texts, and the
seconds of training. The settings are the library's own defaults, but for one epoch, as its documentation has it.
"""

import json
import sys
import time
from pathlib import Path


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
        batch_size=16,
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
