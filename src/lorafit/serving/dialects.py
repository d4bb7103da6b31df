"""The dialects that a server speaks: requests as others define them, and answers in the same words.

Text Embeddings Inference's `/predict` (its OpenAPI of 1.8), vLLM's and Infinity's `/classify`, the Open Inference
Protocol v2 (KServe), and `/predictions`, which says all that a model knows.
"""

import math
import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lorafit.errors import UserInputError
from lorafit.inference.explanation import Explanation
from lorafit.inference.given_texts import AnyText
from lorafit.inference.predictor import Answer
from lorafit.serving.service import Answered
from lorafit.serving.shelf import Served

Name = Annotated[
    str | None, Field(max_length=128, description="The model, `name` or `name@digest`; the only one if left out.")
]
_Texts = Annotated[list[str], Field(fail_fast=True)]
_One = Annotated[list[str], Field(min_length=1, max_length=2, fail_fast=True)]
_PROBABILITY: Final = "probability_"


class Asked(BaseModel):
    """A request; what it does not know is passed over, as those who define the dialects do."""

    model_config = ConfigDict(extra="ignore", strict=True)


class TeiRequest(Asked):
    """Text Embeddings Inference's request: a text, a pair as a flat list of two, or a list of lists of one or two."""

    inputs: Annotated[
        str | _Texts | Annotated[list[_One], Field(fail_fast=True)],
        Field(description='"text", ["text", "pair"] or [["a"], ["b"]].'),
    ]
    raw_scores: Annotated[bool, Field(description="Logits in place of calibrated probabilities.")] = False
    truncate: Annotated[bool | None, Field(description="Passed over: texts are cut as the model was trained to.")] = (
        False
    )
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    model: Name = None

    def read(self) -> tuple[list[AnyText], bool]:
        """Return the texts, and whether they are a batch."""
        if isinstance(self.inputs, str):
            return [self.inputs], False
        if self.inputs and all(isinstance(one, str) for one in self.inputs):
            return [_read_parts([one for one in self.inputs if isinstance(one, str)])], False
        return [_read_parts([one] if isinstance(one, str) else one) for one in self.inputs], True


class ClassifyRequest(Asked):
    """vLLM's and Infinity's request. With `raw_scores`, which vLLM does not know, the answer is Infinity's."""

    input: Annotated[str | _Texts, Field(description="A text or a list of texts.")]
    model: Name = None
    raw_scores: Annotated[bool | None, Field(description="Infinity's: logits in place of probabilities.")] = None

    def read(self) -> list[AnyText]:
        """Return the texts."""
        return [self.input] if isinstance(self.input, str) else list(self.input)


class PredictionsRequest(Asked):
    """lorafit's own request."""

    texts: Annotated[
        list[str | _One], Field(min_length=1, fail_fast=True, description="Texts, or pairs as lists of two.")
    ]
    model: Name = None
    top_k: Annotated[int | None, Field(ge=1, description="Most scores of a text; all if left out.")] = None
    raw_scores: Annotated[bool, Field(description="Logits in place of calibrated probabilities.")] = False

    def read(self) -> list[AnyText]:
        """Return the texts."""
        return [one if isinstance(one, str) else _read_parts(one) for one in self.texts]


class ExplainRequest(Asked):
    """A text, and the label whose words are wanted; the predicted one if left out."""

    text: str | _One
    model: Name = None
    label: str | None = None

    def read(self) -> AnyText:
        """Return the text."""
        return self.text if isinstance(self.text, str) else _read_parts(self.text)


class Tensor(Asked):
    """A tensor of the Open Inference Protocol."""

    name: Annotated[str, Field(max_length=128)]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=10**6)]], Field(max_length=4, fail_fast=True)]
    datatype: Annotated[str, Field(max_length=16)]
    data: _Texts | Annotated[list[_Texts], Field(fail_fast=True)]


class InferRequest(Asked):
    """A request of the Open Inference Protocol: `text`, and `text_pair` for a model of pairs, of BYTES, shape [n]."""

    id: Annotated[str | None, Field(max_length=256)] = None
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=2)]

    def read(self) -> list[AnyText]:
        """Return the texts; a UserInputError says what is wrong with the tensors."""
        given: dict[str, list[str]] = {}
        for tensor in self.inputs:
            data = [text for one in tensor.data for text in ([one] if isinstance(one, str) else one)]
            if tensor.datatype != "BYTES" or math.prod(tensor.shape) * bool(tensor.shape) != len(data):
                raise UserInputError("Give tensors of datatype BYTES whose shape has as many elements as their data.")
            given[tensor.name] = data
        if given.keys() == {"text"}:
            return list(given["text"])
        if given.keys() != {"text", "text_pair"} or len(given["text"]) != len(given["text_pair"]):
            raise UserInputError("Name the tensor of the texts text, and that of their pairs text_pair, as long.")
        return list(zip(given["text"], given["text_pair"], strict=True))


def _read_parts(parts: Sequence[str]) -> AnyText:
    """Return a text, or a pair; a UserInputError says that it is neither."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) != 2:
        raise UserInputError(
            f'A flat list is one pair of texts, and this one has {len(parts)}. A batch is a list of lists: [["a"], …].'
        )
    return parts[0], parts[1]


def rank_scores(served: Served, answer: Answer, *, raw: bool) -> list[tuple[str, float]]:
    """Return labels with their scores, the highest first: probabilities, numbers of a regression, or raw outputs."""
    task = served.predictor.task
    names, scores = (task.output_names, answer.logits) if raw else (task.label_names, answer.values)
    return sorted(zip(names, map(float, scores), strict=True), key=lambda pair: -pair[1])


def _find_main(served: Served, answer: Answer) -> int:
    """Return the place of the label that the model gives a text, or of several of the most probable one."""
    return int(served.predictor.task.main_output(answer.values[np.newaxis])[0])


def tell_tei(asked: Answered, *, raw: bool, batch: bool) -> list[Any]:
    """Answer as Text Embeddings Inference does."""
    rows = [
        [{"score": score, "label": label} for label, score in rank_scores(asked.model, answer, raw=raw)]
        for answer in asked.answers
    ]
    return rows if batch else rows[0]


def tell_vllm(asked: Answered) -> dict[str, Any]:
    """Answer as vLLM does: probabilities in the order of the labels."""
    names = asked.model.predictor.task.label_names
    data = [
        {
            "index": index,
            "label": names[_find_main(asked.model, answer)],
            "probs": answer.values.tolist(),
            "num_classes": len(names),
        }
        for index, answer in enumerate(asked.answers)
    ]
    usage = {**_usage(asked), "completion_tokens": 0, "prompt_tokens_details": None}
    return {"id": f"classify-{uuid.uuid4().hex}", "object": "list", **_sign(asked), "data": data, "usage": usage}


def tell_infinity(asked: Answered, *, raw: bool) -> dict[str, Any]:
    """Answer as Infinity does."""
    data = [
        [{"score": score, "label": label} for label, score in rank_scores(asked.model, answer, raw=raw)]
        for answer in asked.answers
    ]
    return {
        "object": "classify",
        "id": f"infinity-{uuid.uuid4()}",
        **_sign(asked),
        "data": data,
        "usage": _usage(asked),
    }


def _sign(asked: Answered) -> dict[str, Any]:
    return {"model": asked.model.name, "created": int(time.time())}


def _usage(asked: Answered) -> dict[str, int]:
    return {"prompt_tokens": asked.tokens, "total_tokens": asked.tokens}


def tell_predictions(asked: Answered, *, raw: bool, top_k: int | None) -> dict[str, Any]:
    """Answer with all that the model knows of its texts."""
    rows = []
    for answer in asked.answers:
        columns = answer.prediction.columns()
        known = {name: value for name, value in columns.items() if not name.startswith(_PROBABILITY)}
        conformal = getattr(answer.prediction, "conformal_set", None)
        scores = rank_scores(asked.model, answer, raw=raw)[:top_k]
        ranked = [{"label": label, "score": score} for label, score in scores]
        rows.append({**known, "conformal_set": conformal, "scores": ranked})
    told = {"model": asked.model.name, "digest": asked.model.digest, "task": asked.model.predictor.task.name}
    return {**told, "predictions": rows}


def tell_explanation(served: Served, found: Explanation) -> dict[str, Any]:
    """Say which words a prediction rests on, by their places in the text."""
    words = [
        {"text": word.text, "start": word.start, "end": word.end, "contribution": word.contribution}
        for word in found.words
    ]
    return {
        "model": served.name,
        "digest": served.digest,
        "text": found.text,
        "label": found.label,
        "score": found.score,
        "words": words,
    }


def tell_infer(asked: Answered, request: InferRequest) -> dict[str, Any]:
    """Answer as the Open Inference Protocol has it: the best label of each text, its score, and all scores."""
    names, rows = asked.model.predictor.task.label_names, len(asked.answers)
    best = [_find_main(asked.model, answer) for answer in asked.answers]
    columns: list[tuple[str, str, list[int], list[Any]]] = [
        ("label", "BYTES", [rows], [names[place] for place in best]),
        ("score", "FP64", [rows], [float(one.values[place]) for one, place in zip(asked.answers, best, strict=True)]),
        ("scores", "FP64", [rows, len(names)], [float(score) for one in asked.answers for score in one.values]),
    ]
    outputs = [{"name": name, "datatype": kind, "shape": shape, "data": data} for name, kind, shape, data in columns]
    told = {"model_name": asked.model.name, "model_version": asked.model.digest, "outputs": outputs}
    return told if request.id is None else {**told, "id": request.id}


def describe_tensors(served: Served) -> dict[str, Any]:
    """Describe a model as the Open Inference Protocol does."""
    names = ["text", "text_pair"] if served.predictor.pair else ["text"]
    labels = len(served.predictor.task.label_names)
    return {
        "name": served.name,
        "versions": [served.digest],
        "platform": "lorafit",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in names],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP64", "shape": [-1]},
            {"name": "scores", "datatype": "FP64", "shape": [-1, labels]},
        ],
    }


def describe_model(served: Served) -> dict[str, Any]:
    """Say what a model is."""
    predictor = served.predictor
    return {
        "name": served.name,
        "digest": served.digest,
        "task": predictor.task.name,
        "labels": list(predictor.task.label_names),
        "pair": predictor.pair,
        "max_length": predictor.max_length,
        "precision": predictor.runtime.precision,
        "runtime": predictor.runtime.name,
        "calibrated": predictor.calibration is not None,
        "shares_base": served.alone is None,
        "alone_because": served.alone,
        "pinned": served.pinned,
        "report": None if served.report is None else f"/reports/{served.name}",
        "card": None if served.card is None else f"/cards/{served.name}",
    }
