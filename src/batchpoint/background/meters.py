"""What happened since the server started, counted for monitors; what is there now is asked when they ask.

The numbers are those of Prometheus: counters only grow, and begin at nothing with each server. No label has more values
than there are statuses, reasons, computes or loops: never a name of a job, an endpoint or a file.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import product
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from batchpoint.background.loop import LoopHealth
from batchpoint.entities.jobs import TERMINAL_STATUSES, Job, JobStatus, JobType, Progress, Reason

_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_DRIFTS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5)
Delivery = Literal["delivered", "failed"]
"""How an attempt at a delivery went."""
_PLAN = "plan"
"""The type that a scoring job is counted as which only scores a sample."""
_TYPES = (*get_args(JobType), _PLAN)
_UNITS = get_args(Progress.model_fields["unit"].annotation)
_OUTCOMES = ("ok", "failed", "skipped")
_SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 1)


class Meters:
    """The counters of one server, over all of its workspaces."""

    def __init__(self) -> None:
        self._telling = threading.Lock()
        self._registry = registry = CollectorRegistry()
        self._ended = Counter(
            "batchpoint_jobs_ended", "Jobs that this server saw end.", ["type", "status", "reason"], registry=registry
        )
        self._waited = Histogram(
            "batchpoint_job_queue_seconds", "From the queue to the start of a job.", ["type"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._took = Histogram(
            "batchpoint_job_seconds", "From the start of a job to its end.", ["type", "status"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._items = Counter(
            "batchpoint_items",
            "Rows and files of scoring jobs that ended, by what became of them; of a retry those that it scored again, "
            "of a plan none.",
            ["unit", "outcome"],
            registry=registry,
        )
        self._mini_batches = Counter("batchpoint_mini_batches", "Mini-batches of the same jobs.", registry=registry)
        self._failed_mini_batches = Counter(
            "batchpoint_mini_batches_failed", "Those among them that failed.", registry=registry
        )
        self._losses = Counter("batchpoint_workers_lost", "Workers that died while they scored.", registry=registry)
        self._timeouts = Counter("batchpoint_timeouts", "Calls of run() that took too long.", registry=registry)
        self._drift = Histogram(
            "batchpoint_job_drift", "Greatest drift of a column, of jobs that ended and were compared.",
            buckets=_DRIFTS, registry=registry,
        )  # fmt: skip
        self._missing = Histogram(
            "batchpoint_job_missing_change", "Greatest change of a column's share of missing values, of the same jobs.",
            buckets=_SHARES, registry=registry,
        )  # fmt: skip
        self._attempts = Counter(
            "batchpoint_webhook_attempts", "Attempts at deliveries of webhooks, by how they went.", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self._pending = Gauge(
            "batchpoint_webhook_deliveries_pending", "Deliveries that have neither arrived nor been given up.",
            registry=registry,
        )  # fmt: skip
        self._jobs = Gauge("batchpoint_jobs", "Jobs, by where they are in their life.", ["status"], registry=registry)
        self._instances = Gauge(
            "batchpoint_instances", "Instances of computes, by what they do.", ["workspace", "compute", "state"],
            registry=registry,
        )  # fmt: skip
        self._lag = Gauge(
            "batchpoint_schedule_lag_seconds", "How long the schedule that is most overdue should have fired before.",
            registry=registry,
        )  # fmt: skip
        self._loops = Gauge(
            "batchpoint_loop_up", "Whether a background loop runs and its last round went well.", ["loop"],
            registry=registry,
        )  # fmt: skip

        self._begin_at_nothing()

    def job_ended(self, job: Job) -> None:
        """Count a job that has just ended, with what is known of it."""
        kind = _PLAN if job.sample is not None else job.type
        self._ended.labels(kind, str(job.status), str(job.reason)).inc()
        if job.queued_at and job.started_at:
            self._waited.labels(kind).observe((job.started_at - job.queued_at).total_seconds())
        if job.started_at and job.finished_at:
            took = (job.finished_at - job.started_at).total_seconds()
            self._took.labels(kind, str(job.status)).observe(took)
        if kind == "scoring":  # of a pipeline the steps were counted, and a plan publishes nothing
            self._count_items(job)
        if job.type == "scoring" and job.progress is not None:
            self._losses.inc(job.progress.worker_losses)
            self._timeouts.inc(job.progress.timeouts)
        if job.quality is not None and job.quality.drift is not None:
            self._drift.observe(job.quality.drift)
        if job.quality is not None and job.quality.missing_change is not None:
            self._missing.observe(job.quality.missing_change)

    def delivery_attempted(self, outcome: Delivery) -> None:
        """Count an attempt at a delivery."""
        self._attempts.labels(outcome).inc()

    def told(
        self,
        *,
        jobs: Mapping[JobStatus, int],
        instances: Mapping[tuple[str, str, str], int],
        next_due_at: datetime | None,
        pending_deliveries: int,
        now: datetime,
        loops: Iterable[LoopHealth],
    ) -> bytes:
        """Everything in the text form of Prometheus.

        Args:
            jobs: how many there are in each status.
            instances: how many of a workspace's compute are in a state; the machine's is of no workspace.
            next_due_at: when the first schedule fires.
            pending_deliveries: of webhooks.
            now: the server's time.
            loops: how the loops fare.
        """
        with self._telling:  # another monitor that asks at the same time would be told of the half of it
            for status, count in jobs.items():
                self._jobs.labels(str(status)).set(count)
            self._instances.clear()
            for labels, count in instances.items():
                self._instances.labels(*labels).set(count)
            self._lag.set(max(0.0, (now - next_due_at).total_seconds()) if next_due_at else 0.0)
            self._pending.set(pending_deliveries)
            for loop in loops:
                self._loops.labels(loop.name).set(1 if loop.is_well else 0)
            return generate_latest(self._registry)

    def _begin_at_nothing(self) -> None:
        """Tell 0 of everything that may be counted: to a monitor a count that appears as 1 has not grown."""
        for kind, reason in product(_TYPES, Reason):
            self._ended.labels(kind, str(reason.status), str(reason))
        for kind in _TYPES:
            self._waited.labels(kind)
        for kind, status in product(_TYPES, TERMINAL_STATUSES):
            self._took.labels(kind, str(status))
        for unit, outcome in product(_UNITS, _OUTCOMES):
            self._items.labels(unit, outcome)
        for outcome in get_args(Delivery):
            self._attempts.labels(outcome)

    def _count_items(self, job: Job) -> None:
        """Count what the job scored itself: a retry takes over what the job that it retries was counted with."""
        progress = job.progress or Progress()
        told = job.receipt or progress
        skipped = 0 if job.retry_of else told.skipped
        for outcome, count in (("ok", told.ok - progress.kept), ("failed", told.failed), ("skipped", skipped)):
            self._items.labels(told.unit, outcome).inc(count)
        self._mini_batches.inc(progress.mini_batches_done - progress.mini_batches_kept)
        self._failed_mini_batches.inc(progress.mini_batches_failed)
