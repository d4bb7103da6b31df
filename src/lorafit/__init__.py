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
    from lorafit.config import Config
    from lorafit.errors import LorafitError
    from lorafit.experiments.compare.compare import compare
    from lorafit.experiments.diff.diff import diff
    from lorafit.experiments.reproduce import reproduce
    from lorafit.inference.explanation import Explanation, explain
    from lorafit.inference.export.export import export
    from lorafit.inference.loading import load
    from lorafit.inference.predictor import Predictor
    from lorafit.reports.publishing import Pushed, push
    from lorafit.runs.opening import opening
    from lorafit.tasks.multi_label import MultiLabelPrediction
    from lorafit.tasks.regression import RegressionPrediction
    from lorafit.tasks.single_label import Prediction
    from lorafit.training.check import check
    from lorafit.training.estimator import TextClassifier, TextRegressor
    from lorafit.training.pipeline import Run, resume, train

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Explanation",
    "LorafitError",
    "MultiLabelPrediction",
    "Prediction",
    "Predictor",
    "Pushed",
    "RegressionPrediction",
    "Run",
    "TextClassifier",
    "TextRegressor",
    "__version__",
    "check",
    "compare",
    "diff",
    "explain",
    "export",
    "load",
    "opening",
    "push",
    "reproduce",
    "resume",
    "train",
]

_HOMES = {
    "Config": "lorafit.config",
    "Explanation": "lorafit.inference.explanation",
    "LorafitError": "lorafit.errors",
    "MultiLabelPrediction": "lorafit.tasks.multi_label",
    "Prediction": "lorafit.tasks.single_label",
    "Predictor": "lorafit.inference.predictor",
    "Pushed": "lorafit.reports.publishing",
    "RegressionPrediction": "lorafit.tasks.regression",
    "Run": "lorafit.training.pipeline",
    "TextClassifier": "lorafit.training.estimator",
    "TextRegressor": "lorafit.training.estimator",
    "check": "lorafit.training.check",
    "compare": "lorafit.experiments.compare.compare",
    "diff": "lorafit.experiments.diff.diff",
    "explain": "lorafit.inference.explanation",
    "export": "lorafit.inference.export.export",
    "load": "lorafit.inference.loading",
    "opening": "lorafit.runs.opening",
    "push": "lorafit.reports.publishing",
    "reproduce": "lorafit.experiments.reproduce",
    "resume": "lorafit.training.pipeline",
    "train": "lorafit.training.pipeline",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lorafit' has no attribute {name!r}")
    from lorafit.system.extras import without_telemetry

    with without_telemetry():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
