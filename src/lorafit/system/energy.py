"""What the processor says it has used: Linux's RAPL counters, where there are some and they may be read."""

import time
from pathlib import Path

from lorafit.system.hardware import SYSTEM_ROOT

_ZONES = "sys/class/powercap/intel-rapl:*"
"""Named so for processors of AMD, too. Those of cores and graphics have a name of their own and lie in a package."""

_COUNTED = ("package", "dram")
_MOST_WATTS = 500.0
"""What a zone is taken to use at most where it names no limit."""


class EnergyMeter:
    """Tells the energy used since it was last asked, by the whole processor and whatever runs on it.

    A counter begins anew at its end, after minutes or hours. It is believed only if it cannot have done so twice at the
    power that its zone is limited to.
    """

    def __init__(self, root: Path = SYSTEM_ROOT) -> None:
        """Begin to measure.

        Args:
            root: Where `sys` lies.
        """
        self._zones = [zone for zone in sorted(root.glob(_ZONES)) if _read_text(zone / "name").startswith(_COUNTED)]
        self._mark, self._counts = time.monotonic(), self._read()

    @property
    def works(self) -> bool:
        """Whether this machine tells."""
        return bool(self._counts)

    def read_joules(self) -> float | None:
        """Return the joules used since the last call, or since the beginning; None where they are not known."""
        seconds, before = time.monotonic() - self._mark, self._counts
        self._mark, self._counts = time.monotonic(), self._read()
        if not before or len(self._counts) != len(before):
            return None
        spent = 0.0
        for zone, earlier, now in zip(self._zones, before, self._counts, strict=True):
            full = _read_number(zone / "max_energy_range_uj")
            if full is None or seconds >= full / 1e6 / _find_limit(zone):
                return None
            spent += (now - earlier) % full
        return spent / 1e6

    def _read(self) -> list[float]:
        counts = [count for zone in self._zones if (count := _read_number(zone / "energy_uj")) is not None]
        return counts if len(counts) == len(self._zones) else []


def _find_limit(zone: Path) -> float:
    """Return the watts that a zone is limited to."""
    limits = [_read_number(path) or 0.0 for path in zone.glob("constraint_*_power_limit_uw")]
    return max(limits, default=0.0) / 1e6 or _MOST_WATTS


def _read_number(path: Path) -> float | None:
    text = _read_text(path)
    return float(text) if text.isdecimal() else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
