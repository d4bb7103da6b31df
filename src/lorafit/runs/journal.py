"""Keeps `run.json` up to date during a run, however it ends."""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lorafit.errors import TrainingInterruptedError
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system import hardware
from lorafit.system.energy import EnergyMeter


class Journal:
    """The record of a run under way; every change is written to `run.json` at once."""

    def __init__(self, layout: RunLayout, record: RunRecord, *, meter: EnergyMeter | None = None) -> None:
        self.layout = layout
        self._meter = meter or EnergyMeter()
        begins = self._meter.works and record.energy_joules is None and not record.seconds
        self.record = record.model_copy(update={"energy_joules": 0.0}) if begins else record
        self.update(status="running")

    def update(self, **changes: Any) -> None:
        """Change fields of the record, update peak memory and energy, and write it."""
        peak = max(self.record.peak_memory_bytes, hardware.peak_memory_bytes())
        measured = {"peak_memory_bytes": peak, "energy_joules": self._add_energy()}
        self.record = self.record.model_copy(update={**changes, **measured})
        self.record.write(self.layout.record)

    def _add_energy(self) -> float | None:
        """Return the joules so far, or None if those of any part of the run are unknown."""
        spent, before = self._meter.read_joules(), self.record.energy_joules
        return None if spent is None or before is None else before + spent

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; the seconds of a resumed run add up."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = self.record.seconds.get(name, 0.0) + time.perf_counter() - began
            self.update(seconds={**self.record.seconds, name: seconds})

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Record how the block ended, and turn Ctrl-C into an error that names the command to resume.

        Raises:
            TrainingInterruptedError: The block was interrupted.
        """
        try:
            yield
        except (KeyboardInterrupt, TrainingInterruptedError) as error:
            self.update(status="interrupted")
            run = shlex.quote(str(self.layout.root))
            raise TrainingInterruptedError(
                f"Interrupted; what was done is kept. Go on with:\n  lorafit train --resume {run}",
                run=self.layout.root,
            ) from error
        except BaseException:
            self.update(status="failed")
            raise
        self.update(status="complete")
