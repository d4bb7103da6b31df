"""The short form of a check, which every training begins with: what is found at once, as sentences."""

from typing import Final

from lorafit.data.quality.debris import find_debris
from lorafit.data.quality.duplicates import find_conflicts, group_equal
from lorafit.data.quality.findings import Finding
from lorafit.data.quality.rows import draw_samples, join_splits
from lorafit.data.rows import Splits

_SAMPLE_ROWS: Final = 1000
_KINDS: Final = ("html", "encoding", "lost-characters")


def quick_findings(splits: Splits) -> list[str]:
    """Find contradictory labels, HTML and wrong encodings; texts shared by splits are notes of `load_splits`.

    Args:
        splits: The rows of a run.

    Returns:
        A sentence for each finding: of conflicts over all rows, of debris over a sample of the training rows.
    """
    rows = join_splits(splits)
    samples = [one for one in draw_samples(rows, 0, most=_SAMPLE_ROWS) if one.split == "train"]
    found: list[Finding] = [*find_conflicts(rows, group_equal(rows.texts)), *find_debris(rows, samples, kinds=_KINDS)]
    return [f"{one.message} Look at them with lorafit check." for one in found if one.severity != "note"]
