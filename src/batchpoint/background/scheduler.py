"""Schedules that are due → jobs. The clock is the registry's, so that tests move it."""

from __future__ import annotations

import math

from batchpoint.background.loop import Loop
from batchpoint.workspace import Workspace

LOOK_SECONDS = 2.0
"""How often to look for schedules that another server of the same registry was given."""


class Scheduler:
    """Fires the schedules of one registry. Any number of servers may do so: each time makes one job."""

    def __init__(self, workspace: Workspace) -> None:
        self._schedules = workspace.registry.schedules
        self._operations = workspace.schedules
        self._now = workspace.registry.now
        self._until_due = math.inf
        self.loop = Loop(
            "scheduler",
            self.step,
            interval=LOOK_SECONDS,
            wake=workspace.schedule_changed,
            until_due=lambda: self._until_due,
        )

    def step(self) -> bool:
        """Do what is due now; whether there was something."""
        due_at = self._schedules.next_due_at()
        seconds = (due_at - self._now()).total_seconds() if due_at is not None else math.inf
        self._until_due = max(seconds, 0.0)
        if seconds > 0:
            return False
        self._until_due = LOOK_SECONDS
        fired, looked, taken_over = self._fire(), self._look(), self._take_over()
        return fired or looked or taken_over

    def _fire(self) -> bool:
        runs = self._schedules.claim_due()
        for run in runs or ():
            self._operations.start(run)
        return runs is not None

    def _look(self) -> bool:
        claimed = self._schedules.claim_look()
        if claimed is None:
            return False
        run = self._operations.look_for_files(*claimed)
        if run is not None:
            self._operations.start(run)
        return True

    def _take_over(self) -> bool:
        run = self._schedules.claim_pending()
        if run is not None:
            self._operations.start(run)
        return run is not None
