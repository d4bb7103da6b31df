"""Keeps `run.json` up to date during a run, however it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from lorafit.errors import TrainingDivergedError, TrainingInterruptedError
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system import hardware
from lorafit.system.energy import EnergyMeter
from lorafit.system.faults import name_faults


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
    def kept(self, command: str | None = None) -> Iterator[None]:
        """Record how the block ended; turn a signal, or a fault of the machine, into an error that says how to go on.

        Args:
            command: The command that goes on; None takes the one that resumes the run.

        Raises:
            TrainingInterruptedError: The block was interrupted.
            EnvironmentUnfitError: The machine lacks something, such as room on the disk.
        """
        command = command or self.layout.resume_command
        try:
            with name_faults(f"What was done is kept. Then go on with:\n  {command}"):
                yield
                self.update(status="complete")
        except (KeyboardInterrupt, TrainingInterruptedError) as error:
            self._end("interrupted")
            raise TrainingInterruptedError(
                f"Interrupted; what was done is kept. Go on with:\n  {command}", run=self.layout.root
            ) from error
        except TrainingDivergedError as error:
            self._end("failed")
            if not error.settings or self.record.divergence is None:
                raise
            settings = self.record.divergence.describe_settings()
            raise TrainingDivergedError(
                f"{error}\nOr go on from the last checkpoint with {settings}:\n  {command}", settings=error.settings
            ) from error
        except BaseException:
            self._end("failed")
            raise

    def _end(self, status: Literal["interrupted", "failed"]) -> None:
        """Write how the run ended, if there is any room for it."""
        with suppress(OSError):
            self.update(status=status)
