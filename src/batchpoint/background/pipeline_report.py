"""What a pipeline job tells about its steps: its log, its progress, and why it failed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from batchpoint.entities.jobs import Job, JobError, JobStatus, Progress
from batchpoint.entities.pipelines import has_failed
from batchpoint.registry.jobs import StepJob

_SUMMED = ("planned_items", "ok", "kept", "failed", "skipped", "mini_batches_planned", "mini_batches_done",
           "mini_batches_kept", "mini_batches_failed", "workers", "worker_losses", "timeouts")  # fmt: skip


def history(planned: Sequence[str], steps: Iterable[StepJob]) -> str:
    """The log of a pipeline job: a line for everything that happened to a step, in the order of time.

    It follows from the steps' jobs alone, so whoever drives the pipeline, after whatever was killed, writes the same;
    and what has been written once stays in front of what comes.
    """
    width = max((len(name) for name in planned), default=0)
    events = sorted(event for step in steps for event in _events(step))
    return "".join(f"{_time(at)}  {name:<{width}}  {words}\n" for at, _, name, words in events)


def progress_of(planned: int, steps: Sequence[StepJob]) -> Progress:
    """How far a pipeline is: its steps counted, the items of its scoring steps summed up."""
    done = sum(step.status == JobStatus.COMPLETED for step in steps)
    failed = sum(has_failed([step.status]) for step in steps)
    known = [step.progress for step in steps if step.progress is not None]
    running = [step.progress.fraction for step in steps if step.progress and not step.status.is_finished]
    sums = {key: sum(getattr(each, key) for each in known) for key in _SUMMED}
    is_over = all(step.status.is_finished for step in steps) and len(steps) == planned
    return Progress(
        unit="rows" if any(each.unit == "rows" for each in known) else "files",
        phase="finished" if is_over else "running",
        planned_all=is_over,
        fraction=round((done + sum(each or 0.0 for each in running)) / planned, 4) if planned else None,
        steps_planned=planned,
        steps_done=done,
        steps_failed=failed,
        **sums,
    )


def failure_of(ended: Mapping[str, Job], never_started: Sequence[str]) -> JobError | None:
    """Why a pipeline failed: which steps did, with the first one's own error. None when no step failed."""
    failed = {name: job for name, job in ended.items() if has_failed([job.status])}
    if not failed:
        return None
    words = [_why(name, job) for name, job in failed.items()]
    message = words[0] if len(words) == 1 else "\n  ".join([f"{len(words)} steps failed:", *words])
    if never_started:
        message += f"\nNever started: {', '.join(never_started)}."
    first = next((job.error for job in failed.values() if job.error is not None), None)
    if first is None:
        return JobError(code="step_failed", message=message)
    return first.model_copy(update={"code": "step_failed", "message": message, "log": None})


def _why(name: str, job: Job) -> str:
    if job.status == JobStatus.CANCELED:
        return f"Step {name} (job {job.name}) was canceled."
    return f"Step {name} (job {job.name}) failed: {job.error.message if job.error else job.reason}"


def _events(step: StepJob) -> Iterable[tuple[datetime, int, str, str]]:
    name = step.step_name
    if step.reused_job_name is not None:
        yield step.queued_at, 0, name, f"not run: it has the outputs of job {step.reused_job_name} (job {step.name})"
        return
    yield step.queued_at, 0, name, f"queued as job {step.name}"
    if step.started_at is not None:
        yield step.started_at, 1, name, "started"
    if step.finished_at is not None:
        seconds = (step.finished_at - (step.started_at or step.queued_at)).total_seconds()
        yield step.finished_at, 2, name, f"{step.status} after {seconds:.1f} s"


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
