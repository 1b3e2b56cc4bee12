"""A job that was claimed: what the dispatcher and the pipeline driver hold of each of theirs."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from batchpoint.entities.jobs import Job, Progress
from batchpoint.errors import LeaseLostError
from batchpoint.registry.jobs import Jobs
from batchpoint.workspace import Workspace

LEASE_SECONDS = 30.0
RENEW_SECONDS = 2.0
"""A lease is renewed this often at least, which is also how long a cancel from another process may go unseen."""


def owner_of(workspace: Workspace) -> str:
    """The name under which the servers of a home claim jobs, one after the other."""
    return f"{os.uname().nodename}:{workspace.settings.home}"


@dataclass
class LeasedJob:
    """A claimed job."""

    work: Workspace
    """Its own workspace."""
    job: Job
    lease_token: str
    folder: Path

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others: names are unique within a workspace."""
        return self.work.name, self.job.name

    @property
    def jobs(self) -> Jobs:
        """The jobs of its workspace."""
        return self.work.registry.jobs

    def renew(self, progress: Progress | None = None) -> bool:
        """Hold it for longer, and pass on how far it is; whether somebody asked to cancel it.

        Raises:
            LeaseLostError: another server works on it now.
        """
        return self.jobs.renew(self.job.name, self.lease_token, LEASE_SECONDS, progress)

    def release(self) -> None:
        """Let go of it: whoever claims it next goes on with it at once."""
        with suppress(LeaseLostError):
            self.jobs.release(self.job.name, self.lease_token)
