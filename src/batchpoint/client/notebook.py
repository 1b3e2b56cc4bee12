"""How a job shows itself in a notebook: plain HTML, no server, no script."""

from __future__ import annotations

from html import escape

from batchpoint.entities.jobs import Job as JobEntity
from batchpoint.entities.jobs import JobStatus, Progress

_COLORS = {JobStatus.COMPLETED: "#2e7d32", JobStatus.FAILED: "#c62828", JobStatus.CANCELED: "#757575"}


def job_html(job: JobEntity, page: str) -> str:
    """The job's state, a bar while it runs, its receipt, its error, where its predictions lie; a link to its page."""
    color = _COLORS.get(job.status, "#1565c0")
    name = f"<a href='{escape(page)}' target='_blank' rel='noopener'>{escape(job.name)}</a>"
    title = f"<b>{name}</b> <span style='color:{color}'>{job.status.value}</span>"
    rows = [f"<div>{title}</div>"]
    if job.progress is not None:
        done = 1.0 if job.status is JobStatus.COMPLETED else fraction_of(job.progress)
        rows.append(
            "<div style='background:#8883;width:32em;max-width:100%;height:.6em;border-radius:.3em;margin:.3em 0'>"
            f"<div style='background:{color};width:{done:.1%};height:100%;border-radius:.3em'></div></div>"
        )
        rows.append(f"<div>{escape(progress_line(job.progress))}</div>")
    if job.receipt is not None:
        receipt = job.receipt
        cells = (("in", receipt.items), ("ok", receipt.ok), ("failed", receipt.failed), ("skipped", receipt.skipped))
        counts = " · ".join(f"{name} <b>{count:,}</b>" for name, count in cells)
        rows.append(f"<div>{counts} {receipt.unit}</div>")
    if job.error is not None:
        rows.append(f"<div style='color:{_COLORS[JobStatus.FAILED]}'>{escape(job.error.message)}</div>")
        if job.error.traceback:
            rows.append(f"<pre>{escape(job.error.traceback)}</pre>")
    for name, output in job.outputs.items():
        if output.uri:
            rows.append(f"<div>{escape(name)}: <code>{escape(output.uri)}</code></div>")
    return f"<div>{''.join(rows)}</div>"


def fraction_of(progress: Progress) -> float:
    """The done part between 0 and 1."""
    if progress.steps_planned:
        return ((progress.steps_done or 0) + (progress.steps_failed or 0)) / progress.steps_planned
    if progress.fraction is not None:
        return min(1.0, max(0.0, progress.fraction))
    done = progress.ok + progress.failed + progress.skipped
    return min(1.0, done / progress.planned_items) if progress.planned_items else 0.0


def progress_line(progress: Progress) -> str:
    """Progress in one line of text: ``12,000 of 250,000 rows (5 %), 8,100 rows/s, 0:29 left, 3 failed``.

    Of a pipeline: ``1 of 3 steps, 1 failed``.
    """
    if progress.steps_planned is not None:
        failed = f", {progress.steps_failed} failed" if progress.steps_failed else ""
        return f"{progress.phase}: {progress.steps_done or 0} of {progress.steps_planned} steps{failed}"
    done = progress.ok + progress.failed + progress.skipped
    total = f"{progress.planned_items:,}{'' if progress.planned_all else '+'}"
    parts = [f"{progress.phase}: {done:,} of {total} {progress.unit} ({fraction_of(progress):.0%})"]
    if progress.items_per_second:
        parts.append(f"{progress.items_per_second:,.0f} {progress.unit}/s")
    if progress.seconds_left is not None and progress.phase == "scoring":
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.worker_losses:
        parts.append(f"{progress.worker_losses} workers lost")
    return ", ".join(parts)
