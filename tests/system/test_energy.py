import time
from pathlib import Path

import pytest

from lorafit.system.energy import EnergyMeter

FULL = 262_143_328_850


def write_zone(root: Path, zone: str, name: str, microjoules: int, *, watts: int | None = 15) -> Path:
    folder = root / "sys" / "class" / "powercap" / zone
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{FULL}\n")
    if watts is not None:
        (folder / "constraint_0_power_limit_uw").write_text(f"{watts * 1_000_000}\n")
    return folder


def test_packages_and_memory_are_added_up_and_parts_of_a_package_are_not(tmp_path: Path) -> None:
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:2": "dram"}
    others = {"intel-rapl:0:0": "core", "intel-rapl:0:1": "uncore", "intel-rapl:2": "psys"}
    for zone, name in (zones | others).items():
        write_zone(tmp_path, zone, name, 1_000_000)
    meter = EnergyMeter(tmp_path)
    assert meter.works
    for zone, name in (zones | others).items():
        write_zone(tmp_path, zone, name, 3_500_000)
    assert meter.read_joules() == 7.5
    assert meter.read_joules() == 0


def test_a_counter_that_began_anew_is_read_right(tmp_path: Path) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0", FULL - 1_000_000)
    meter = EnergyMeter(tmp_path)
    write_zone(tmp_path, "intel-rapl:0", "package-0", 2_000_000)
    assert meter.read_joules() == 3


@pytest.mark.parametrize(("watts", "seconds"), [(15, 262_143 / 15), (None, 262_143 / 500)])
def test_a_counter_that_may_have_begun_anew_twice_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watts: int | None, seconds: float
) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0", 0, watts=watts)
    meter = EnergyMeter(tmp_path)
    begin = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: begin + 0.98 * seconds)
    assert meter.read_joules() == 0
    monkeypatch.setattr(time, "monotonic", lambda: begin + 2 * seconds)
    assert meter.read_joules() is None


@pytest.mark.parametrize("name", ["energy_uj", "max_energy_range_uj"])
def test_a_counter_that_goes_away_is_not_known(tmp_path: Path, name: str) -> None:
    zone = write_zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = EnergyMeter(tmp_path)
    (zone / name).unlink()
    assert meter.read_joules() is None


def test_a_machine_without_counters_does_not_tell(tmp_path: Path) -> None:
    meter = EnergyMeter(tmp_path)
    assert not meter.works
    assert meter.read_joules() is None


def test_counters_that_must_not_be_read_do_not_tell(tmp_path: Path) -> None:
    (write_zone(tmp_path, "intel-rapl:0", "package-0", 0) / "energy_uj").unlink()
    write_zone(tmp_path, "intel-rapl:1", "package-1", 0)
    assert not EnergyMeter(tmp_path).works, "half of the energy is none"
