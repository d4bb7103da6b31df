"""Files are looked at before a library opens them, and what it says of them becomes a sentence."""

import errno
import shutil
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from lorafit.config import ModelConfig
from lorafit.errors import ConfigError, EnvironmentUnfitError, RunError
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.vetting import check_place, check_tokenizer, reading
from lorafit.tasks.registry import build_task


def test_links_into_the_blobs_of_the_hubs_cache_are_followed(tiny_bert: Path, tmp_path: Path) -> None:
    model = tmp_path / "models--owner--tiny"
    blobs = Path(shutil.copytree(tiny_bert, model / "blobs"))
    snapshot = model / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert (snapshot / "config.json").is_file()
    encoder = locate_encoder(ModelConfig(name=str(snapshot)))
    assert load_with_head(encoder, build_task("single_label", ("no", "yes"))).notes == ()


def test_links_within_the_folder_are_followed_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    (folder / "b.json").symlink_to("a.json")
    check_place(folder)
    (tmp_path / "c.json").write_text("{}")
    (folder / "c.json").symlink_to("../c.json")
    with pytest.raises(ConfigError, match=r"c\.json is a link out of its folder, to .*c\.json\. Put the file itself"):
        check_place(folder)


@pytest.mark.parametrize(
    "said",
    [
        "Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
        "Re-running `torch.load` with `weights_only` set to `False` will likely succeed",
    ],
)
def test_advice_to_trust_a_file_is_not_passed_on(said: str) -> None:
    with pytest.raises(ConfigError) as caught, reading("It cannot be read"):
        raise ValueError(said)
    assert str(caught.value) == "It cannot be read: it needs code that comes with it, which lorafit never runs."


def test_what_a_library_says_is_one_harmless_line() -> None:
    with pytest.raises(ConfigError) as caught, reading("It cannot be read"):
        raise ValueError("a\x1b[31m\n\nb" + "c" * 10_000)
    assert str(caught.value).startswith("It cannot be read: a\N{REPLACEMENT CHARACTER}[31m b")
    assert len(str(caught.value)) < 400


def test_fault_of_the_machine_stays_one() -> None:
    with pytest.raises(EnvironmentUnfitError, match="No space is left"), reading("It cannot be read"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_end_of_a_library_in_rust_is_a_sentence_and_ctrl_c_is_not() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))  # noqa: S106 - a token of text, no password
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    with pytest.raises(RunError, match="cannot take it: Onig: Regex search error"), reading("cannot take it", RunError):
        tokenizer.encode(f"{'a' * 40}b")
    with pytest.raises(KeyboardInterrupt), reading("cannot take it"):
        raise KeyboardInterrupt


def test_usual_tokenizers_are_taken(tiny_bert: Path) -> None:
    path = tiny_bert / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    check_tokenizer(tokenizer, path)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(" ", "▁")]
    )
    check_tokenizer(tokenizer, path)
