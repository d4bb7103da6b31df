import math
import os
import shlex
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel

from lorafit.config import (
    Config,
    DataConfig,
    FormatConfig,
    SearchRange,
    TrainingConfig,
    describe_source,
    load_config,
)
from lorafit.errors import ConfigError, UserInputError


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def refused(*overrides: str) -> str:
    """What is said about overrides that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides)
    return str(caught.value)


def test_nothing_given_gives_the_defaults() -> None:
    assert load_config() == Config()
    assert Config().data is not Config().data


def test_the_file_yields_to_flags_and_flags_to_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "training: {epochs: 5, seed: 5, batch_size: 5}\nmethod: {r: 5}\n")
    config = load_config(
        path,
        flags={"training.seed": 6, "training.batch_size": 6, "method.r": None, "model.name": "some/model"},
        overrides=["training.batch_size=7", "training.batch_size = 8"],
    )
    assert (config.training.epochs, config.training.seed, config.training.batch_size) == (5, 6, 8)
    assert (config.method.r, config.model.name) == (5, "some/model")
    assert config.training.max_grad_norm == Config().training.max_grad_norm


def test_all_settings_survive_the_way_through_yaml(tmp_path: Path) -> None:
    config = load_config(
        overrides=[
            "data.source=übersicht.csv",
            "data.text_column='yes'",
            "data.validation='1e3'",
            "method.target_modules=[q_lin, v_lin]",
            "training.learning_rate=1e-7",
            "training.max_steps=3",
        ]
    )
    assert config.data.validation == "1e3"
    assert load_config(write(tmp_path, config.to_yaml())) == config
    assert load_config(write(tmp_path, Config().to_yaml())) == Config()
    assert "übersicht.csv" in config.to_yaml()


def test_searches_of_before_other_storages_are_the_same_still() -> None:
    config = load_config(overrides=["search.seed=1"])
    assert "storage" not in config.to_yaml()
    config.search.storage = "journal"
    assert "storage: journal" in config.to_yaml()


@pytest.mark.parametrize("text", ["5e-4", "0.0005", "'5e-4'", " 5e-4"])
def test_exponents_without_a_dot_are_numbers(text: str) -> None:
    assert load_config(overrides=[f"training.learning_rate={text}"]).training.learning_rate == 5e-4


def test_an_override_may_hold_equals_signs_and_null() -> None:
    config = load_config(flags={"data.max_rows": 5}, overrides=["data.source=a=b.csv", "data.max_rows=null"])
    assert (config.data.source, config.data.max_rows) == ("a=b.csv", None)


@pytest.mark.parametrize("content", ["", "# nothing\n", "training:\n", "training: {}\ndata:\n"])
def test_empty_files_and_sections_change_nothing(tmp_path: Path, content: str) -> None:
    assert load_config(write(tmp_path, content)) == Config()
    assert load_config(write(tmp_path, content), overrides=["training.epochs=9"]).training.epochs == 9


def test_all_faults_are_told_at_once() -> None:
    message = refused(
        "training.epochs=0",
        "training.learning_rate=fast",
        "method.r=0",
        "method.target_modules=banana",
        "model.truncation=middle",
        "data.txt_column=review",
        "data.validation_fraction=0.5",
        "epochs=3",
        "colour=red",
    )
    assert message.splitlines()[0] == "9 settings cannot be used:"
    for line in (
        "training.epochs: Input should be greater than or equal to 1, got 0",
        "training.learning_rate: Input should be a valid number, unable to parse string as a number, got 'fast'",
        "method.r: Input should be greater than or equal to 1, got 0",
        "method.target_modules: got 'banana'; allowed: all-linear, attention, query-value, value, feed-forward, "
        "key-value-down, or a list of module names",
        "model.truncation: Input should be 'head', 'tail', 'head+tail' or 'windows', got 'middle'",
        "data.txt_column: unknown setting; did you mean data.text_column?",
        "data.validation_fraction: Input should be less than 0.5, got 0.5",
        "epochs: unknown setting; did you mean training.epochs?",
        "colour: unknown setting; allowed here: data, model, method, training, evaluation, search",
    ):
        assert f"  {line}" in message.splitlines()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lerning_rate=1", "did you mean training.learning_rate?"),
        ("trainin.epochs=1", "trainin: unknown setting; did you mean training?"),
        ("lora_alpha=1", "did you mean method.lora_alpha?"),
        ("method.zzz=1", "allowed here: name, r, lora_alpha"),
        ("training.epochs.x=1", "training.epochs: Input should be a valid integer, got {'x': 1}"),
        ("training.learning_rate=.inf", "training.learning_rate: Input should be a finite number, got inf"),
        ("training.learning_rate=.nan", "training.learning_rate: Input should be "),
        ("data.text_column=", "data.text_column: Input should be a valid string, got None"),
        ("data.text_column=''", "data.text_column: String should have at least 1 character"),
        ("method.target_modules=[]", "method.target_modules: got []"),
        ("training=5", "training: a section of settings, such as training.learning_rate, got 5"),
        ("data.format=5", "data.format: a section of settings, such as data.format.delimiter, got 5"),
        ("data.header=true", "data.header: unknown setting; did you mean data.format.header?"),
        ("search.space={method.r: 4}", "search.space.method.r.list: Input should be a valid list, got 4"),
        ("search.space={method.r: {low: 4}}", "search.space.method.r.range.high: Field required, got {'low': 4}"),
        ("training.=5", "training.: unknown setting"),
        ("training.epochs", "--set takes section.key=value, got 'training.epochs'"),
        ("=5", "--set takes section.key=value, got '=5'"),
        ("training.epochs=[", "--set 'training.epochs=[': the value is not valid YAML."),
    ],
)
def test_a_fault_says_what_is_allowed(override: str, message: str) -> None:
    assert message in refused(override)


def test_a_value_where_a_section_should_be_is_named() -> None:
    assert refused("training=5", "training.epochs=2") == "training.epochs: training holds a value, not a section."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("training: {epochs: [", "is not valid YAML"),
        ("training: !!python/object:os.system {}", "is not valid YAML"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        ("- training\n", r"must hold sections \(data, model, method, training, evaluation, search\), got list"),
        ("just text", "must hold sections .* got str"),
        ("training: {1: 2}\n", r"training\.1: Keys should be strings"),
        ("training: {epochs: none}\n", r"config\.yaml and flags\):\n  training\.epochs: "),
    ],
)
def test_unusable_files_are_refused_by_name(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_opened_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no file .*missing\.yaml"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="is a folder; a file of settings is needed"):
        load_config(tmp_path)


BOMB = """x: 1
a: &a [x,x,x,x,x,x,x,x,x]
""" + "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB + "training:\n  epochs: *i\n", "holds too much; allowed are 10,000 settings.*LORAFIT_LIMIT_SETTINGS="),
        ("a: &a [*a]\n", r"has an alias of nothing, or of itself: \*a"),
        ("a: *b\n", r"has an alias of nothing, or of itself: \*b"),
        ("training:\n  epochs: " + "[" * 50_000, "has too many levels; allowed are 100 levels"),
        ("training:\n  epochs: " + "1" * 5000, "is not valid YAML: Exceeds the limit"),
        ("data: {seed: 2001-99-99}", "is not valid YAML"),
        ("x" * (1 << 20) + "x", "is larger than a file of settings may be; allowed are 1,048,576 bytes"),
        (
            "training: {epochs: " + "9" * 4000 + "}",
            r"epochs: whole numbers must be below 2\*\*63 in size, got a number of",
        ),
        ("k" * 100_000 + ": 1", "is not valid YAML: mapping values are not allowed"),
        ("? " + "k" * 100_000 + "\n: 1", "kkk…: unknown setting"),
        ("training:\n" + "".join(f"  x{number}: 1\n" for number in range(4000)), "4,000 settings .*… 3,988 more"),
        ("training: {epochs: [" + ",".join("x" * 4000) + "]}", "Input should be a valid integer, got"),
    ],
    ids=range(12),
)
def test_too_much_in_a_file_is_refused_in_a_few_lines(tmp_path: Path, content: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError, match=f"(?s){message}") as caught:
        load_config(write(tmp_path, content))
    assert len(str(caught.value)) < 5000
    assert len(str(caught.value).splitlines()) < 25
    assert time.process_time() - start < 10


def test_a_few_aliases_are_taken(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "data: {slice_columns: &names [a, b], files: *names}\n"))
    assert config.data.files == config.data.slice_columns == ["a", "b"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (".".join("a" * 50_000) + "=1", "has 49,999 levels; allowed are 100 levels"),
        ("k" * 1_000_000 + "=1", "kkk…: unknown setting"),
        ("training.epochs=" + "[" * 1000, "the value has too many levels"),
        ("training.epochs=" + "1" * 5000, "the value is not valid YAML"),
        ("data.seed=" + "1" * 4000, "whole numbers must be below 2**63 in size, got a number of about 3,999 digits"),
        ("data.seed=-" + "1" * 30, "whole numbers must be below 2**63 in size"),
        ("training.threads=1" + "0" * 25, "whole numbers must be below 2**63 in size"),
        ("training.epochs=" + "x" * 2_000_000, "the value is too long"),
        ("x" * 1_000_000, "--set takes section.key=value, got 'xxx"),
        ("training.epochs=\x00", "the value is not valid YAML"),
    ],
    ids=range(10),
)
def test_too_much_in_an_override_is_refused_in_a_line(override: str, message: str) -> None:
    told = refused(override)
    assert message in told
    assert len(told) < 1500


@pytest.mark.parametrize("section", ["data", "training", "evaluation", "search"])
def test_seeds_are_those_that_every_library_takes(section: str) -> None:
    assert getattr(load_config(overrides=[f"{section}.seed={2**32 - 1}"]), section).seed == 2**32 - 1
    assert f"{section}.seed: Input should be less than 4294967296" in refused(f"{section}.seed={2**32}")


def test_too_many_overrides_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"more overrides .* allowed are 10,000"):
        load_config(overrides=(f"training.epochs={number}" for number in range(1, 10**9)))


def test_pipes_and_devices_are_no_settings(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"is a pipe; a file of settings is needed.*cat .*a\.yaml > copy\.yaml"):
        load_config(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="is a device; a file of settings is needed"):
        load_config(Path("/dev/zero"))


def test_assignment_is_checked_too() -> None:
    config = Config()
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        config.training.epochs = 0
    with pytest.raises(ConfigError, match="finite"):
        config.training.learning_rate = math.inf


def test_what_python_sets_wrongly_is_told_by_its_whole_name() -> None:
    config = Config()
    with pytest.raises(ConfigError, match=r"^1 setting cannot be used:\n  training\.epochs: .* 1, got -1$"):
        config.training.epochs = -1
    with pytest.raises(ConfigError, match=r"training\.epoch: unknown setting; did you mean training\.epochs\?"):
        config.training.epoch = 1
    with pytest.raises(ConfigError, match=r"data\.format\.header: .* got 7"):
        config.data.format.header = 7  # type: ignore[assignment]  # the mistake
    with pytest.raises(ConfigError, match=r"model: a section of settings, such as model\.name, got 'distilbert'"):
        config.model = "distilbert"  # type: ignore[assignment]  # the mistake
    with pytest.raises(ConfigError, match=r"epochs: unknown setting; did you mean training\.epochs\?"):
        Config(epochs=2)  # type: ignore[call-arg]  # the mistake
    with pytest.raises(ConfigError, match=r"training\.epochs: .* got -1"):
        TrainingConfig(epochs=-1)
    with pytest.raises(ConfigError, match=r"data\.format\.hedaer: unknown .* data\.format\.header\?"):
        FormatConfig(hedaer=True)  # type: ignore[call-arg]  # the mistake
    with pytest.raises(ConfigError, match=r"SearchRange: low must be below high$"):
        SearchRange(low=2, high=1)
    assert config == Config()


def test_what_is_refused_beside_another_setting_is_not_set() -> None:
    config = Config()
    config.data.group_column = "author"
    with pytest.raises(ConfigError, match=r"not by both$"):
        config.data.time_column = "day"
    assert (config.data.time_column, config.data.model_fields_set) == (None, {"group_column"})
    config.data.seed = 3


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in Config.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        yield name, field.annotation


@pytest.mark.parametrize(("name", "section"), list(sections()))
def test_every_setting_is_described(name: str, section: type[BaseModel]) -> None:
    assert section.__doc__
    for key, field in section.model_fields.items():
        assert (field.description or "").endswith("."), f"{name}.{key}"
        assert not field.is_required(), f"{name}.{key}"


@pytest.mark.parametrize("text", ["90s", "10m", "1h30m", "1h"])
def test_budget_is_kept_as_written(text: str) -> None:
    assert load_config(overrides=[f"training.budget={text}"]).training.budget == text


@pytest.mark.parametrize("text", ["90", "soon", "0s", "10 minutes"])
def test_budget_that_is_no_time_is_refused(text: str) -> None:
    assert f"training.budget: a time is written like 90s, 10m, 1h30m or 1h, got {text}" in refused(
        f"training.budget={text}"
    ).replace("'", "")


@pytest.mark.parametrize("how", ["merge", "merge:", "dropped", ""])
def test_other_treatments_of_rare_labels_are_refused_in_words(how: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"data\.rare_labels: allowed are stop, drop, keep and merge:NAME, got '{how}'"
    ):
        load_config(flags={"data.rare_labels": how})


@pytest.mark.parametrize("layers", ["upper3", "top0", "top", "3", "all2"])
def test_layers_other_than_all_and_the_top_ones_are_refused(layers: str) -> None:
    with pytest.raises(
        ConfigError, match=r"method\.layers: allowed are all, and top1, top2, … for the last layers, got"
    ):
        load_config(flags={"method.layers": layers})


def test_a_path_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.yaml").write_text("training: {epochs: 7}")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(Path("~/own.yaml")).training.epochs == 7
    with pytest.raises(
        UserInputError, match=r"there is no user nobody-of-that-name .* write \./~nobody-of-that-name/a"
    ):
        load_config(Path("~nobody-of-that-name/a.yaml"))


def test_a_fault_names_the_flag_that_it_came_from() -> None:
    flags = {"data.bad_rows": "skip", "model.name": "", "training.epochs": 0, "data.format.quoting": None}
    with pytest.raises(ConfigError) as caught:
        load_config(flags=flags, overrides=["training.epochs=-1"])
    told = str(caught.value).splitlines()
    assert told[0] == "3 settings cannot be used:"
    assert told[1].endswith("got 'skip' (--bad-rows)")
    assert told[2].endswith("got '' (--model)")
    assert told[3].endswith("got -1"), "the flag was overridden"


def test_a_stride_without_windows_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"add --truncation windows, or leave it out \(--set [a-z._]+=null\)$"):
        load_config(overrides=["model.window_stride=4"])
    flags = {"model.truncation": "windows"}
    assert load_config(flags=flags, overrides=["model.window_stride=4"]).model.window_stride == 4


def test_another_source_is_read_without_what_is_about_the_rows_of_this_one() -> None:
    ours = {
        "files": ["b.csv"],
        "validation": "v.csv",
        "test": "t.csv",
        "max_rows": 5,
        "corrections": "c.csv",
        "task": "multi_label",
        "text_column": "body",
    }
    kept = DataConfig(source="other.csv", task="multi_label", text_column="body")
    for cut in ("group_column", "time_column"):
        assert DataConfig(source="a.csv", **ours, **{cut: "x"}).for_source("other.csv") == kept  # type: ignore[arg-type]


def test_a_source_is_described_by_what_is_not_the_default() -> None:
    config = Config(data=DataConfig(source="my a.csv"))
    assert describe_source(config) == "'my a.csv'"
    config.data.label_columns = ["one"]
    config.data.bad_rows, config.data.max_rows, config.data.text_pair_column = "drop", 9, "answer"
    config.model.name = "owner/base"
    assert shlex.split(describe_source(config, without={"--bad-rows"})) == [
        "my a.csv",
        *("--text-column", "text", "--text-column", "answer"),
        *("--set", 'data.label_columns=["one"]'),
        *("--set", "data.max_rows=9"),
        *("--model", "owner/base"),
    ]


def test_a_tab_may_be_typed_as_in_a_shell() -> None:
    assert load_config(flags={"data.format.delimiter": "\\t"}).data.format.delimiter == "\t"


@pytest.mark.parametrize("value", ["!!float ", "!!int ", "!!timestamp x", "1e999999999999"])
def test_numbers_of_yaml_that_are_none_are_refused_in_one_sentence(value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(overrides=[f"data={value}"])
    assert "\n\n" not in str(refused.value)
