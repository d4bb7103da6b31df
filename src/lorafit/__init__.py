"""Fine-tune a small text encoder into your own classifier with LoRA, on a CPU, with evidence.

    import lorafit

    run = lorafit.train(lorafit.Config())
    predictor = lorafit.load(run.path)
    predictor.predict(["a gem"])

The names are imported when they are first used, so that `import lorafit` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorafit.answers import LabelsPrediction, NumberPrediction, Prediction
    from lorafit.config import Config
    from lorafit.difference.diff import diff
    from lorafit.errors import LorafitError
    from lorafit.explanation import Explanation, explain
    from lorafit.exporting.export import export
    from lorafit.finetune import Run, train
    from lorafit.loading import load
    from lorafit.predictor import Predictor
    from lorafit.reproduction import reproduce

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Explanation",
    "LabelsPrediction",
    "LorafitError",
    "NumberPrediction",
    "Prediction",
    "Predictor",
    "Run",
    "__version__",
    "diff",
    "explain",
    "export",
    "load",
    "reproduce",
    "train",
]

_HOMES = {
    "Config": "lorafit.config",
    "Explanation": "lorafit.explanation",
    "LabelsPrediction": "lorafit.answers",
    "LorafitError": "lorafit.errors",
    "NumberPrediction": "lorafit.answers",
    "Prediction": "lorafit.answers",
    "Predictor": "lorafit.predictor",
    "Run": "lorafit.finetune",
    "diff": "lorafit.difference.diff",
    "explain": "lorafit.explanation",
    "export": "lorafit.exporting.export",
    "load": "lorafit.loading",
    "reproduce": "lorafit.reproduction",
    "train": "lorafit.finetune",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lorafit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
