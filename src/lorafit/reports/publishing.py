"""`push`: a run as a repository of the Hugging Face Hub, which plain libraries open, and lorafit as the run it was.

What is published has no text of the data, and no folder of this machine.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lorafit.config import Config
from lorafit.errors import MissingExtraError, UserInputError
from lorafit.models.builtin import BUILTIN_ENCODERS
from lorafit.models.load import Encoder
from lorafit.models.methods import find_method
from lorafit.reports.model_card import Published, render_base_card, render_model_card
from lorafit.reports.page import write_report
from lorafit.runs.bases import find_own_base
from lorafit.runs.evidence import check_trained, read_metrics, read_settings
from lorafit.runs.folder import RunLayout, suggest_name
from lorafit.runs.hub import PREFIX, RUN_FOLDER, asking_hub, check_repository, locate_run
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import compute_digest
from lorafit.system.digests import digest_files
from lorafit.system.extras import require
from lorafit.system.paths import AnyPath
from lorafit.system.progress import Progress, Silent

_NEW: Final = {".gitattributes", "README.md"}
"""What the Hub puts into a repository that is made on its page."""

_BASE_KEYS: Final = ("base_model_name_or_path", "model_name")
"""How PEFT and AdapterHub name the base."""


@dataclass(frozen=True)
class Pushed:
    """A run on the Hub.

    Attributes:
        name: As lorafit opens it: `hub:owner/name@commit`.
        url: Its page.
        base: Repository of its base; None where the model itself was trained.
    """

    name: str
    url: str
    base: str | None


def push(
    run: AnyPath,
    name: str,
    *,
    private: bool = False,
    base_repo: str | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Push a run to the Hugging Face Hub.

    The repository is made, or gets a further commit if it holds a run already. `lorafit.load("hub:owner/name")` opens
    it, and so does what opens the run's own folder: `PeftModel.from_pretrained(base, "owner/name")`.

    Args:
        run: The run folder.
        name: The repository: `owner/name`.
        private: Whether repositories that are made can be seen by their owner alone.
        base_repo: Repository for the base of an adapter, `owner/name`, where that is not on the Hub: a built-in
            encoder, or one in a folder. It is pushed once, for all runs on it.
        progress: Told what is being done.

    Returns:
        The repository.

    Raises:
        RunError: The run is not complete, or a file of it is missing or altered.
        UserInputError: The base is not on the Hub and no repository was named for it; a name is none; a repository
            holds something else; or the token may not write to it.
        EnvironmentUnfitError: There is no token, or the Hub does not take it.
        NetworkUnavailableError: The Hub does not answer.
        MissingExtraError: The Hub's client is not installed.
    """
    hub = require("huggingface_hub", extra="train", purpose="Pushing a run")
    progress = progress or Silent()
    for one in (name, *([] if base_repo is None else [base_repo])):
        check_repository(one)
    layout = RunLayout(locate_run(run))
    record = RunRecord.read(layout.record)
    check_trained(layout, record)
    encoder = find_own_base(layout, record) if find_method(record.method).is_adapter else None
    _check_base(encoder, base_repo, name)
    api = hub.HfApi()
    with asking_hub(name):
        api.whoami()
        _list_files(api, name, {f"{RUN_FOLDER}/{layout.record.name}"})
    base = None
    if encoder is not None:
        base = (encoder.name, str(encoder.revision))
        if base_repo is not None:
            progress.start(f"pushing the base to {base_repo}")
            with asking_hub(base_repo):
                base = (base_repo, _push_base(api, encoder, base_repo, private=private))
    with tempfile.TemporaryDirectory(prefix="lorafit-") as place:
        folder = Path(place)
        progress.start(f"pushing the run to {name}")
        _lay_out(layout, record, folder, Published(name, base), progress)
        with asking_hub(name):
            api.create_repo(name, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=f"Push a run of lorafit ({record.method})",
                delete_patterns="*",
            )
    return Pushed(f"{PREFIX}{name}@{commit.oid}", f"{api.endpoint}/{name}", None if base is None else base[0])


def _check_base(encoder: Encoder | None, base_repo: str | None, name: str) -> None:
    """Refuse a repository for a base that needs none, and none for one that needs it."""
    if encoder is None or (encoder.revision is not None and encoder.reference == encoder.name):
        if base_repo is not None:
            here = "the model itself was trained" if encoder is None else f"the base is on the Hub, as {encoder.name}"
            raise UserInputError(f"--base-repo is not needed: {here}.")
    elif base_repo is None:
        suggestion = f"{name.partition('/')[0]}/{suggest_name(encoder.name)}"
        raise UserInputError(
            f"The base of this run, {encoder.name}, is not on the Hub, so that nobody could open the adapter. Name a "
            f"repository for it, which is pushed once and serves every run on it: --base-repo {suggestion}"
        )


def _push_base(api: Any, encoder: Encoder, name: str, *, private: bool) -> str:  # noqa: ANN401 - the client is not imported here
    """Push a base unless it is there, and return its commit."""
    weights = sorted(encoder.folder.glob("*.safetensors"))
    files = _list_files(api, name, {path.name for path in weights})
    if all(path.name in files for path in weights):
        there = {
            one.path: one.lfs and one.lfs.sha256 for one in api.get_paths_info(name, [one.name for one in weights])
        }
        if any(there[path.name] != compute_digest(path) for path in weights):
            raise UserInputError(f"{name} holds other weights than those of the base {encoder.name}. Name another one.")
        return str(api.model_info(name).sha)
    with tempfile.TemporaryDirectory(prefix="lorafit-") as place:
        folder = Path(place)
        for path in encoder.folder.iterdir():
            if (
                path.is_file()
                and path.suffix in {".json", ".safetensors", ".txt", ".model"}
                and path.name != "digests.json"
            ):
                (folder / path.name).symlink_to(path)
        (folder / "README.md").write_text(render_base_card(encoder.name), encoding="utf-8")
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Push a base of lorafit").oid)


def _list_files(api: Any, name: str, ours: set[str]) -> set[str]:  # noqa: ANN401 - the client is not imported here
    """Return the files of a repository, none where it is still to be made; refuse one without ours that has others."""
    files = set(api.list_repo_files(name)) if api.repo_exists(name) else set[str]()
    if not ours <= files and files - _NEW:
        raise UserInputError(f"{name} holds something else, so nothing was pushed to it. Name another repository.")
    return files


def _lay_out(layout: RunLayout, record: RunRecord, folder: Path, published: Published, progress: Progress) -> None:
    """Write what a repository is to hold."""
    home = RunLayout(folder / RUN_FOLDER)
    home.root.mkdir()
    settings = read_settings(layout, record)
    hidden = _list_folders(layout, settings, record)
    for name in record.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(layout.trained / name, folder / name)
    if published.base is not None:
        _name_base(folder / "adapter_config.json", *published.base)
    home.config.write_text(_hide(settings.to_yaml(), hidden), encoding="utf-8")
    for path in (layout.metrics, layout.history):  # what is solved for has no history
        if path.is_file():
            shutil.copyfile(path, home.root / path.name)
    try:
        write_report(layout.root, texts=False, output=home.report)
        home.report.write_text(_hide(home.report.read_text(encoding="utf-8"), hidden), encoding="utf-8")
    except MissingExtraError as error:
        progress.say(f"without the report: {error}")
    files = digest_files(folder, [folder / name for name in record.files])
    evidence = digest_files(home.root, [path for path in (home.config, home.metrics, home.history) if path.is_file()])
    told = RunRecord.model_validate_json(_hide(record.model_dump_json(), hidden))
    changed: dict[str, Any] = {"files": files, "evidence": evidence}
    if published.base is not None and told.base_model.revision is None and told.base_model.name not in BUILTIN_ENCODERS:
        name, revision = published.base
        changed["base_model"] = told.base_model.model_copy(update={"name": name, "revision": revision})
    told.model_copy(update=changed).write(home.record)
    card = render_model_card(told, read_metrics(layout, record), published)
    (folder / layout.card.name).write_text(card, encoding="utf-8")


def _name_base(path: Path, base: str, revision: str) -> None:
    """Name a base on the Hub in the settings of an adapter."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings |= {key: base for key in _BASE_KEYS if key in settings} | {"revision": revision}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _list_folders(layout: RunLayout, settings: Config, record: RunRecord) -> list[str]:
    """List the folders of this machine that settings and record may name."""
    data = settings.data
    named = [data.source, *data.files, data.validation, data.test, settings.model.name, record.base_model.name]
    paths = [Path(one) for one in named if one is not None and Path(one).is_absolute()]
    return sorted({str(path.parent) for path in (layout.root, *paths, Path.home() / "here")}, key=len, reverse=True)


def _hide(text: str, folders: Iterable[str]) -> str:
    """Leave the names of folders out of what is published."""
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    return text
