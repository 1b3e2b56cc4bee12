"""What a run tells the outside: its log files, ``progress.json`` and ``outcome.json``.

The files, their columns and the wording of their lines are those of Azure ML's parallel runs, in both of its places
(``logs/`` and ``logs/user/``). Everything is gathered in memory and written about twice a second.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from batchpoint.entities.jobs import JobError, Progress, Reason, Receipt
from batchpoint.entities.quality import QualitySummary
from batchpoint.scoring.ledger import FailedItem
from batchpoint.scoring.resource_usage import HEADER, ResourceUsage
from batchpoint.scoring.spec import ScoringSpec
from batchpoint.scoring.state_machine import TIMED_OUT, Counts

LISTED_ERRORS = 100
"""Failed items that ``job_error.txt`` spells out; all of them are in the errors file."""

RESOURCE_SECONDS = 30.0
"""Time between two lines about how busy the machine is."""

README = """\
job_progress_overview.*.txt   how the job went on
job_error.*.txt               errors of the scoring script: look here first
job_result.txt                how the job ended
user/                         the same three files, and for each worker process:
user/stdout, user/stderr      what it printed
user/error                    tracebacks of init() and run()
user/entry_script_log         what the script logged through EntryScript().logger
sys/node                      when workers started, became ready and ended
sys/error                     workers that were killed or died
sys/perf                      how busy the machine was, every half minute
sys/job_report                every mini-batch, worker process and node, as csv
sys/metrics/job/progress.csv  progress over time
"""

_MINI_BATCHES = (
    "Mini-batch Id,Picked Count,Process,Process Start Time,Total,Succeeded,Failed,Elapsed Seconds,Process Seconds,"
    "Run Method Seconds,Status,Error Category,Error Message,Mini-batch Detail\n"
)
END_OF_PART = b'}"\n'
"""How a line of ``processed_mini-batches.csv`` ends, and nothing within one can: quotes within a cell are doubled."""
_PROGRESS = "Datetime,Total Tasks,Scheduled Tasks,Completed Tasks,Failed Tasks,Elapsed Time,Estimated Remaining Time\n"
_PROCESSES = "Node,Process,Tasks,Succeeded Items,Failed Tasks,Run Method Seconds\n"
_NODES = "Node,Processes,Tasks,Succeeded Items,Failed Tasks,Run Method Seconds\n"


@dataclass(slots=True)
class PartLog:
    """One go at a part, as ``processed_mini-batches.csv`` lists it."""

    mini_batch: int
    start: int
    stop: int
    attempt: int
    worker: tuple[str, str]
    began_at: float
    """Unix time."""
    elapsed: float
    ok: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    """Type of the error; empty when it succeeded."""
    message: str = ""


class JobLogs:
    """The log tree of one run."""

    def __init__(self, folder: Path, spec: ScoringSpec) -> None:
        """Create the tree below ``folder/logs``, or go on with the one that is there."""
        self._logs = folder / "logs"
        self._spec = spec
        self._stamp = f"{datetime.now(UTC):%Y%m%d%H%M%S}"
        self._waiting: dict[Path, list[str]] = {}
        self._parts: list[PartLog] = []
        self._processes: dict[tuple[str, str], list[float]] = {}
        self._errors_listed = 0
        self._usage, self._sampled_at = ResourceUsage(), monotonic()
        for name in ("user", "sys/job_report", "sys/metrics/job"):
            (self._logs / name).mkdir(parents=True, exist_ok=True)
        for name in ("job_error", "job_progress_overview"):
            self._both(name, "")  # they exist for every job, also when there is nothing to say
        (self._logs / "readme.txt").write_text(README)
        (self._logs / "sys" / "master_role.txt").write_text("node-0 is the master.\n")
        self._report = self._logs / "sys" / "job_report" / "processed_mini-batches.csv"
        self._metrics = self._logs / "sys" / "metrics" / "job" / "progress.csv"
        for path, header, end in ((self._report, _MINI_BATCHES, END_OF_PART), (self._metrics, _PROGRESS, b"\n")):
            if not path.exists() or not _cut_torn(path, header.encode(), end):
                path.write_text(header)

    def overview(self, text: str) -> None:
        """Add a line to the progress overview."""
        self._both("job_progress_overview", f"{_now()} {text}\n")

    def node(self, worker: tuple[str, str], text: str) -> None:
        """Add a line about a worker to its node's system log."""
        path = self._logs / "sys" / "node" / worker[0] / "_main.txt"
        self._add(path, f"{_now()}|{worker[1]}|{text}\n")

    def system_error(self, worker: tuple[str, str], status: str, message: str) -> None:
        """Note what happened to a worker that did not come from its script: it was killed, or died."""
        path = self._logs / "sys" / "error" / worker[0] / f"{worker[1]}.txt"
        self._add(path, f"{_now()} {json.dumps({'status': status, 'message': message})}\n")

    def sample_resources(self, *, at_once: bool = False) -> None:
        """Add a line about the machine, when the last one is old enough or it is wanted at once."""
        now = monotonic()
        if now - self._sampled_at < RESOURCE_SECONDS and not at_once:
            return
        self._sampled_at = now
        line = self._usage.line()
        if line is not None:
            path = self._logs / "sys" / "perf" / "node-0" / "node_resource_usage.csv"
            self._add(path, line if path.exists() or path in self._waiting else HEADER + line)

    def part(self, entry: PartLog) -> None:
        """Note one go at a part."""
        self._parts.append(entry)

    def failures(self, mini_batch: int, failures: tuple[FailedItem, ...]) -> None:
        """List failed items in the error summary, the first hundred of them."""
        for failure in failures[: LISTED_ERRORS - self._errors_listed]:
            self._errors_listed += 1
            place = failure.file or f"mini-batch {mini_batch}"
            if failure.row is not None:
                place += f", row {failure.row}"
            error = failure.error
            text = error.traceback.rstrip() or f"{error.type}: {error.message}"
            self._both("job_error", f"{_now()} {place}, attempt {failure.attempt}:\n{text}\n\n")

    def error(self, text: str) -> None:
        """Add to the error summary what is no failed item."""
        self._both("job_error", f"{_now()} {text.rstrip()}\n\n")

    def progress(self, counts: Counts, *, elapsed: float, seconds_left: float | None) -> None:
        """Note how far the job is."""
        done, total = counts.mini_batches_done, counts.mini_batches_planned
        spent = _duration(elapsed)
        left = _duration(seconds_left) if seconds_left is not None else "unknown"
        self.overview(f"Processed {done} of {total} mini batches in {spent}. Estimated remaining time {left}.")
        total_known = total if counts.planned_all else ""
        failed = counts.mini_batches_failed
        self._add(self._metrics, f"{_now()},{total_known},{total},{done},{failed},{spent},{left}\n")

    def result(self, reason: Reason, counts: Counts, error: JobError | None) -> None:
        """Write how the job ended, and the reports over processes and nodes."""
        items = counts.ok + counts.failed
        threshold = self._spec.thresholds.items
        summary = (
            f"There are {counts.mini_batches_planned} mini batches with {counts.planned_items} items. "
            f"Processed {counts.mini_batches_done} mini batches containing {items} items, {counts.ok} succeeded, "
            f"{counts.failed} failed. The error threshold is {threshold}."
        )
        self.overview(summary)
        lines = [f"Job {self._spec.job}: {reason.status.value} ({reason.value})", summary]
        if error is not None:
            lines += [error.message, error.traceback or ""]
        text = "\n".join(line for line in lines if line) + "\n"
        for folder in (self._logs, self._logs / "user"):
            (folder / "job_result.txt").write_text(text)
        self.sample_resources(at_once=True)
        self.flush()
        self._write_summaries()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._parts:
            self._add(self._report, "".join(self._part_line(entry) for entry in self._parts))
            self._parts.clear()
        for path, texts in self._waiting.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(texts))
        self._waiting.clear()

    def _both(self, name: str, text: str) -> None:
        self._add(self._logs / f"{name}.{self._stamp}.txt", text)
        self._add(self._logs / "user" / f"{name}.txt", text)

    def _add(self, path: Path, text: str) -> None:
        self._waiting.setdefault(path, []).append(text)

    def _part_line(self, entry: PartLog) -> str:
        total, run, read = entry.stop - entry.start, entry.seconds.get("run", 0.0), entry.seconds.get("read", 0.0)
        summary = self._processes.setdefault(entry.worker, [0, 0, 0, 0.0])
        summary[0] += 1
        summary[1] += entry.ok
        summary[2] += bool(entry.error)
        summary[3] += run
        status, category = "RUN_DONE", ""
        if entry.error:
            status = "RUN_TIMEOUT" if entry.error == TIMED_OUT else "RUN_EXCEPTION"
            category = entry.error
        spent = sum(entry.seconds.values())
        return (
            f"{entry.mini_batch},{entry.attempt},{entry.worker[0]}/{entry.worker[1]},{_iso(entry.began_at)},{total},"
            f"{entry.ok},{total - entry.ok},{entry.elapsed:.6f},{spent:.6f},{run:.6f},{status},{_cell(category)},"
            f'{_cell(entry.message[:500])},"{{""start"":{entry.start},""stop"":{entry.stop},""read"":{read:.6f}}}"\n'
        )

    def _write_summaries(self) -> None:
        nodes: dict[str, list[float]] = {}
        processes = [_PROCESSES]
        for (node, process), sums in sorted(self._processes.items()):
            processes.append(f"{node},{process},{sums[0]},{sums[1]},{sums[2]},{sums[3]:.6f}\n")
            total = nodes.setdefault(node, [0, 0, 0, 0, 0.0])
            for at, value in enumerate([1, *sums]):
                total[at] += value
        lines = [f"{node},{n[0]},{n[1]},{n[2]},{n[3]},{n[4]:.6f}\n" for node, n in nodes.items()]
        report = self._logs / "sys" / "job_report"
        (report / "process_summary.csv").write_text("".join(processes))
        (report / "node_summary.csv").write_text("".join([_NODES, *lines]))


def write_progress(folder: Path, progress: Progress) -> None:
    """Replace ``progress.json`` at once."""
    _replace(folder / "progress.json", progress.model_dump_json(), durable=False)


def read_progress(folder: Path) -> Progress | None:
    """What ``progress.json`` tells; None when there is none, or a crash of the machine left the half of it."""
    try:
        return Progress.model_validate_json((folder / "progress.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def write_outcome(
    folder: Path,
    *,
    reason: Reason,
    error: JobError | None = None,
    receipt: Receipt | None = None,
    outputs: Mapping[str, Any] | None = None,
    notices: list[str] | None = None,
    models_report: str | None = None,
    quality: QualitySummary | None = None,
) -> None:
    """Write ``outcome.json`` at once and for good: the run is over."""
    outcome = {
        "reason": reason.value,
        "error": error.model_dump(mode="json") if error else None,
        "receipt": receipt.model_dump(mode="json") if receipt else None,
        "outputs": dict(outputs or {}),
        "notices": notices or [],
    }
    if models_report is not None:
        outcome["models_report"] = models_report
    if quality is not None:
        outcome["quality"] = quality.model_dump(mode="json")
    _replace(folder / "outcome.json", json.dumps(outcome), durable=True)


def _cut_torn(path: Path, header: bytes, end: bytes) -> bool:
    """Cut off what a killed run left of a line; whether the file begins with the header at all."""
    with path.open("r+b") as file:
        if file.read(len(header)) != header:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            last = text.rfind(end, len(header))
        file.truncate(last + len(end) if last >= 0 else len(header))
    return True


def _replace(path: Path, text: str, *, durable: bool) -> None:
    beside = path.with_name(f"{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def _cell(text: str) -> str:
    """A cell of csv, quoted when it has to be."""
    if not any(character in text for character in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'
