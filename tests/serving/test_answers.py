"""What a server answers is what `lorafit predict` answers, in whatever dialect it is asked."""

import http.client
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import lorafit
from lorafit.inference.predictor import Predictor

if TYPE_CHECKING:
    from tests.serving.conftest import Client, OpenHere, Told

TEXTS = ["superb film hours 1", "awful film minute", "boring dull film, to be honest", "great of fine film minute 7"]


@pytest.fixture(scope="module")
def predictors(adapters: dict[str, Path]) -> dict[str, Predictor]:
    return {name: lorafit.load(path, precision="fp32") for name, path in adapters.items()}


def test_adapters_of_all_tasks_share_one_base(client: "Client") -> None:
    told = client.get("/adapters").content
    assert [one["name"] for one in told["adapters"]] == ["kinds", "points", "stars", "tone"]
    assert all(one["shares_base"] and one["alone_because"] is None for one in told["adapters"])
    assert len({id(one.engine) for one in client.serving.service.shelf}) == 1


@pytest.mark.parametrize("name", ["tone", "kinds", "points", "stars"])
def test_answers_are_those_of_predict_while_other_adapters_are_in_the_batch(
    client: "Client", predictors: dict[str, Predictor], name: str
) -> None:
    def ask(other: str) -> "Told":
        return client.post("/predictions", {"model": other, "texts": TEXTS})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [*predictors] * 4))
    told = answers[[*predictors].index(name)].content
    assert told["digest"] == predictors[name].fingerprint[:12]
    for text, given in zip(TEXTS, told["predictions"], strict=True):
        (expected,) = predictors[name].predict([text])
        (values,) = predictors[name].compute_values([text])
        scores = {one["label"]: one["score"] for one in given["scores"]}
        assert [scores[label] for label in predictors[name].labels] == pytest.approx(values, abs=1e-4)
        for column, value in expected.columns().items():
            if not column.startswith("probability_"):
                assert given[column] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value), column
        conformal = getattr(expected, "conformal_set", None)
        assert given["conformal_set"] == (None if conformal is None else list(conformal))


def test_batches_hold_texts_of_several_adapters(client: "Client") -> None:
    before = client.measure("lorafit_batch_texts_count"), client.measure("lorafit_texts_total")
    names = ["tone", "kinds", "points", "stars"]
    with ThreadPoolExecutor(16) as pool:
        with client.held():
            asked = [
                pool.submit(client.post, "/predictions", {"model": name, "texts": [f"fine film {name} {turn}"]})
                for name in names
                for turn in range(4)
            ]
            client.wait_for("lorafit_queue_tokens", 8 * 6)  # the first batch may have taken several
            time.sleep(0.3)  # until all wait
        assert {one.result().status for one in asked} == {200}
    assert client.measure("lorafit_texts_total") - before[1] == 16
    assert client.measure("lorafit_batch_texts_count") - before[0] <= 3


def test_text_embeddings_inference_is_answered_as_it_answers(
    client: "Client", predictors: dict[str, Predictor]
) -> None:
    one = client.post("/predict", {"inputs": TEXTS[0], "model": "tone"}).content
    assert [set(entry) for entry in one] == [{"label", "score"}] * 2
    assert one[0]["score"] >= one[1]["score"]
    batch = client.post("/predict", {"inputs": [[text] for text in TEXTS], "model": "tone", "truncate": True}).content
    assert [entry["label"] for entry in batch[0]] == [entry["label"] for entry in one]
    values = predictors["tone"].compute_values(TEXTS)
    for row, entries in zip(values, batch, strict=True):
        assert {entry["label"]: entry["score"] for entry in entries} == pytest.approx(
            dict(zip(("neg", "pos"), row, strict=True)), abs=1e-4
        )
    raw = client.post("/predict", {"inputs": TEXTS[0], "model": "tone", "raw_scores": True}).content
    (logits,) = predictors["tone"].compute_logits(TEXTS[:1])
    assert sorted(entry["score"] for entry in raw) == pytest.approx(sorted(logits), abs=1e-3)


def test_a_flat_list_of_two_is_one_pair(client: "Client") -> None:
    told = client.post("/predict", {"inputs": TEXTS[:2], "model": "tone"})
    assert (told.status, told.content["error_type"]) == (422, "validation")
    assert "pair" in told.content["error"]
    told = client.post("/predict", {"inputs": TEXTS[:3], "model": "tone"})
    assert told.status == 422
    assert "list of lists" in told.content["error"]


def test_several_labels_are_no_softmax(client: "Client", predictors: dict[str, Predictor]) -> None:
    (values,) = predictors["kinds"].compute_values(TEXTS[:1])
    told = client.post("/predict", {"inputs": TEXTS[0], "model": "kinds"}).content
    assert sorted(entry["score"] for entry in told) == pytest.approx(sorted(values), abs=1e-4)


def test_vllm_and_infinity_are_answered_as_they_answer(client: "Client", predictors: dict[str, Predictor]) -> None:
    told = client.post("/classify", {"model": "stars", "input": TEXTS}).content
    values = predictors["stars"].compute_values(TEXTS)
    labels = [one.label for one in predictors["stars"].predict(TEXTS)]
    assert told["object"] == "list"
    assert told["usage"]["prompt_tokens"] == told["usage"]["total_tokens"] > len(TEXTS) * 4
    for index, (entry, row) in enumerate(zip(told["data"], values, strict=True)):
        assert (entry["index"], entry["num_classes"]) == (index, 5)
        assert entry["probs"] == pytest.approx(row, abs=1e-4)
        assert entry["label"] == labels[index]
    one = client.post("/classify", {"model": "stars", "input": TEXTS[0]}).content
    assert one["data"][0]["probs"] == pytest.approx(told["data"][0]["probs"], abs=1e-4)
    for path, more in (("/classify", {"raw_scores": False}), ("/infinity/classify", {})):
        told = client.post(path, {"model": "stars", "input": TEXTS, **more}).content
        assert told["object"] == "classify"
        assert [len(entries) for entries in told["data"]] == [5] * len(TEXTS)
        assert told["data"][0][0]["score"] == pytest.approx(values[0].max(), abs=1e-4)


def test_the_open_inference_protocol_is_spoken(client: "Client", predictors: dict[str, Predictor]) -> None:
    assert client.get("/v2").content["name"] == "lorafit"
    assert client.get("/v2/health/ready").status == client.get("/v2/health/live").status == 200
    described = client.get("/v2/models/stars").content
    assert described["outputs"][2] == {"name": "scores", "datatype": "FP64", "shape": [-1, 5]}
    assert client.get("/v2/models/stars/ready").content == {"name": "stars", "ready": True}
    tensor = {"name": "text", "shape": [len(TEXTS), 1], "datatype": "BYTES", "data": TEXTS}
    told = client.post("/v2/models/stars/infer", {"id": "7", "inputs": [tensor]}).content
    assert (told["id"], told["model_version"]) == ("7", described["versions"][0])
    outputs = {one["name"]: one for one in told["outputs"]}
    assert outputs["scores"]["shape"] == [len(TEXTS), 5]
    values = predictors["stars"].compute_values(TEXTS)
    assert outputs["scores"]["data"] == pytest.approx(values.ravel(), abs=1e-4)
    assert outputs["label"]["data"] == [one.label for one in predictors["stars"].predict(TEXTS)]
    nested = {**tensor, "data": [[text] for text in TEXTS]}
    assert client.post("/v2/models/stars/infer", {"inputs": [nested]}).content["outputs"] == told["outputs"]


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        ({"datatype": "FP32"}, "BYTES"),
        ({"shape": [3]}, "as many elements"),
        ({"shape": [9] * 5}, "shape"),
        ({"shape": [10**9]}, "shape"),
        ({"data": [1]}, "string"),
        ({"name": "words"}, "text_pair"),
        ({"shape": [], "data": []}, "no text"),
    ],
)
def test_tensors_that_hold_no_texts_are_refused(client: "Client", tensor: dict[str, Any], said: str) -> None:
    given = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["fine"], **tensor}
    told = client.post("/v2/models/tone/infer", {"inputs": [given]})
    assert told.status == 422
    assert said in told.content["error"]


def test_scores_can_be_few_and_raw(client: "Client") -> None:
    told = client.post("/predictions", {"model": "stars", "texts": TEXTS, "top_k": 2, "raw_scores": True}).content
    assert [len(one["scores"]) for one in told["predictions"]] == [2] * len(TEXTS)


def test_a_small_answer_does_not_wait_to_be_acknowledged(client: "Client") -> None:
    seconds = []
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    for _ in range(60):
        began = time.monotonic()
        connection.request("GET", "/v2/health/live")
        assert connection.getresponse().read() == b'{"live":true}'
        seconds.append(time.monotonic() - began)
    connection.close()
    assert statistics.median(seconds[20:]) < 0.03, "a client that acknowledges late does so after 40 ms"


def test_words_are_explained(client: "Client", predictors: dict[str, Predictor]) -> None:
    expected = lorafit.explain(predictors["tone"], TEXTS[0])
    told = client.post("/explanations", {"model": "tone", "text": TEXTS[0]}).content
    assert told["label"] == expected.label
    assert [word["text"] for word in told["words"]] == [word.text for word in expected.words]
    assert [word["contribution"] for word in told["words"]] == pytest.approx(
        [word.contribution for word in expected.words], abs=1e-2
    )
    told = client.post("/explanations", {"model": "tone", "text": TEXTS[0], "label": "neutral"})
    assert told.status == 422


def test_windows_and_pairs_are_served(open_here: "OpenHere", train_run: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"first": f"{word} film {row}", "second": "hours and hours " * (row % 7), "label": label}
        for row in range(60)
        for word, label in (("awful", "bad"), ("lovely", "good"))
    ]
    path.write_text("".join(json.dumps({**row, "second": row["second"] or "film"}) + "\n" for row in rows))
    run = train_run(
        "single_label",
        f"data.source={path}",
        "data.text_column=first",
        "data.text_pair_column=second",
        "model.truncation=windows",
        folder=tmp_path,
    )
    pairs = [["lovely film", "hours and hours " * 20], ["awful", "film"]]
    expected = lorafit.load(run, precision="fp32").compute_values([(first, second) for first, second in pairs])
    with open_here({"pairs": run}) as client:
        told = client.post("/predictions", {"texts": pairs}).content["predictions"]
        assert [one["scores"][0]["score"] for one in told] == pytest.approx(expected.max(axis=1), abs=1e-4)
        flat = client.post("/predict", {"inputs": pairs[0]}).content
        assert flat[0]["score"] == pytest.approx(expected[0].max(), abs=1e-4)
        tensors = [
            {"name": name, "shape": [2], "datatype": "BYTES", "data": list(column)}
            for name, column in zip(("text", "text_pair"), zip(*pairs, strict=True), strict=True)
        ]
        told = client.post("/v2/models/pairs/infer", {"inputs": tensors}).content["outputs"]
        assert told[1]["data"] == pytest.approx(expected.max(axis=1), abs=1e-4)
        assert client.post("/predictions", {"texts": ["alone"]}).status == 422
