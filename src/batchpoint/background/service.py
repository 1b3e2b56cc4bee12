"""All that goes on by itself, started and stopped together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from batchpoint import logs
from batchpoint.background.compute_pool import Node, nodes_of
from batchpoint.background.dispatcher import Dispatcher
from batchpoint.background.job_changes import JobChanges
from batchpoint.background.launcher import RUNNER_PARENT, Launcher
from batchpoint.background.loop import LoopHealth
from batchpoint.background.meters import Meters
from batchpoint.background.pipeline_driver import PipelineDriver
from batchpoint.background.scheduler import Scheduler
from batchpoint.background.traces import Traces
from batchpoint.background.webhooks import Webhooks
from batchpoint.entities.jobs import Job
from batchpoint.entities.resources import Compute, pool_of
from batchpoint.workspace import Workspace


class Background:
    """The loops of one server: they work for all of its workspaces."""

    def __init__(self, workspace: Workspace, *, runner_parent: Sequence[str] = RUNNER_PARENT) -> None:
        self.changes = JobChanges()
        self.meters = Meters()
        self.traces = Traces(workspace)
        self._workspace = workspace
        self._launcher = Launcher(workspace, runner_parent=runner_parent)
        self.dispatcher = Dispatcher(workspace, self._launcher, self.changes, self._job_ended)
        self.pipeline_driver = PipelineDriver(workspace, self.changes, self.dispatcher.hurry, self._job_ended)
        self.scheduler = Scheduler(workspace)
        self.webhooks = Webhooks(workspace, self.meters)
        self._loops = [
            *self.dispatcher.loops, *self.pipeline_driver.loops, self.scheduler.loop, self.webhooks.loop,
            *self.traces.loops,
        ]  # fmt: skip

    def start(self) -> None:
        """Start every loop, and the parent of runners."""
        self._launcher.warm_up()
        self.dispatcher.take_over()
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """End every loop. Runs go on; the next server takes them over."""
        for loop in self._loops:
            loop.stop()
        self.pipeline_driver.stop()
        self.dispatcher.stop()
        self.traces.stop()
        self._launcher.close()

    def cancel(self, work: Workspace, name: str) -> Job:
        """Ask for a job of a workspace to be canceled, and have it done at once. Raises as ``Jobs.cancel``."""
        job, has_ended = work.jobs.cancel(name)
        if has_ended:
            self._job_ended(work.name, job)
        self.dispatcher.hurry(work.name, name)
        self.changes.notify()
        return job

    def health(self) -> list[LoopHealth]:
        """How every loop fares."""
        return [loop.health() for loop in self._loops]

    def metrics(self) -> bytes:
        """What a monitor is told, in the text form of Prometheus. Raises ``RegistryError``."""
        registry = self._workspace.registry
        computes = [(pool.rpartition("/")[0], compute) for pool, compute in registry.resources.pools().items()]
        instances = Counter(
            (workspace, compute.name, node.node_state)
            for workspace, compute in computes
            for node in self.nodes(compute, workspace)
        )
        return self.meters.told(
            jobs=registry.jobs.counts_by_status(),
            instances=instances,
            next_due_at=registry.schedules.next_due_at(),
            pending_deliveries=registry.deliveries.pending(),
            now=registry.now(),
            loops=self.health(),
        )

    def _job_ended(self, workspace: str, job: Job) -> None:
        """What is noted of a job that has ended, whoever carried it out."""
        self.meters.job_ended(job)
        self.traces.job_ended(workspace, job)
        self.webhooks.loop.wake.set()
        with logs.about(workspace=workspace, job=job.name, status=str(job.status), reason=str(job.reason)):
            logs.jobs.info("Job %s %s: %s", job.name, job.status, job.reason)

    def nodes(self, compute: Compute, workspace: str) -> list[Node]:
        """The instances of a compute of a workspace, with what they do."""
        warm = self._launcher.warm_instances(pool_of(workspace, compute.name))
        return nodes_of(compute, workspace, self.dispatcher.held(), warm)
