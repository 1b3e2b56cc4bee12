"""Schedules that are due, of all workspaces → jobs. The clock is the registry's, so that tests move it."""

from __future__ import annotations

import logging
import math

from batchpoint.background.loop import Loop
from batchpoint.errors import NotFoundError, RegistryError
from batchpoint.operations.schedules import Schedules
from batchpoint.registry.schedules import DueRuns
from batchpoint.workspace import Workspace

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often to look for schedules that another server of the same registry was given."""


class Scheduler:
    """Fires the schedules of one registry, whatever workspace they belong to.

    Any number of servers may do so: each time makes one job.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._schedules = workspace.registry.schedules
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
        return self._start(self._schedules.claim_due())

    def _look(self) -> bool:
        claimed = self._schedules.claim_look()
        if claimed is None:
            return False
        operations = self._operations(claimed.workspace)
        if operations is None:
            return True
        run = operations.look_for_files(claimed.schedule, claimed.until)
        return self._start(DueRuns(claimed.workspace, [run] if run is not None else []))

    def _take_over(self) -> bool:
        return self._start(self._schedules.claim_pending())

    def _start(self, due: DueRuns | None) -> bool:
        """Start the jobs of claimed runs, within their workspace; whether anything was claimed."""
        if due is None:
            return False
        operations = self._operations(due.workspace)
        if operations is None:
            return True
        for run in due.runs:
            try:
                operations.start(run)
            except RegistryError:
                raise  # nothing can be written down: whoever claims the run later tries again
            except Exception as error:  # the rim of a run: whatever happened belongs into its record, and others go on
                log.exception("The job of schedule %s at %s could not be started", run.schedule_name, run.fire_at)
                operations.broke_off(run, error)
        return True

    def _operations(self, workspace: str) -> Schedules | None:
        """Those of a workspace, or None when it was deleted a moment ago, with all its schedules."""
        try:
            return self._workspace.within(workspace, create=False).schedules
        except NotFoundError:
            return None
