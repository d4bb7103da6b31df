"""Records of the model behind a run."""

from lorafit.system.records import Record


class BaseModelRecord(Record):
    """The pre-trained encoder of a run.

    Attributes:
        name: As lorafit names it: `builtin:…`, a Hub id or a folder.
        revision: Commit on the Hub, if that is where it came from.
        digest: SHA-256 of the weights file(s).
        architecture: transformers' `model_type`.
    """

    name: str
    revision: str | None
    digest: str
    architecture: str


class ParameterCounts(Record):
    """Numbers of parameters: of the adapter, of the head (both trained), and of the whole model with both."""

    adapter: int
    head: int
    total: int

    @property
    def trainable_share(self) -> float:
        """Trained parameters as a share of all, 0 to 1."""
        return (self.adapter + self.head) / self.total
