"""Results as json, yaml, table or tsv; jobs as a progress bar or plain lines."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from batchpoint.errors import RequestError

if TYPE_CHECKING:
    from batchpoint.cli.options import State
    from batchpoint.client.jobs import Job
    from batchpoint.entities.jobs import Job as JobEntity
    from batchpoint.entities.jobs import Receipt

LINE_SECONDS = 5.0
"""Between two lines of progress in a log."""


def render(value: Any, *, output: str, query: str | None = None, columns: tuple[str, ...] = ()) -> str:
    """A result as text.

    Raises:
        RequestError: the query is not JMESPath.
    """
    if query is not None:
        value, columns = _search(query, value), ()
    if output == "none" or (value is None and (query is not None or output not in ("json", "jsonc"))):
        return ""
    if output in ("yaml", "yamlc"):
        import yaml

        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip().removesuffix("\n...")
    if output == "table":
        return _table(value, columns)
    if output == "tsv":
        return _tsv(value)
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _colored(text) if output == "jsonc" and sys.stdout.isatty() else text


def follow(job: Job, state: State) -> None:
    """Show a job's progress until it ends: a bar on a terminal, else a line every few seconds; then how it ended.

    Leaves the program with exit code 1 when the job failed or was canceled.
    """
    try:
        if state.only_errors:
            job.wait(raise_on_failure=False)
        elif sys.stderr.isatty():
            _bar(job)
        else:
            _lines(job, state)
    except KeyboardInterrupt:
        state.note(f"The job goes on. Follow it with 'batchpoint job stream -n {job.name}', stop it with 'job cancel'.")
        raise
    for line in summary(job.entity):
        state.note(line)
    end(job)


def end(job: Job) -> None:
    """Leave with exit code 1, saying why, when the job failed or was canceled."""
    from batchpoint.entities.jobs import JobStatus

    status = job.entity.status
    if status is JobStatus.FAILED:
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {job.why_failed()}", err=True)
    elif status is JobStatus.CANCELED:
        click.echo(f"Job {job.name} was canceled. What was committed until then is kept.", err=True)
    if status in (JobStatus.FAILED, JobStatus.CANCELED):
        raise click.exceptions.Exit(1)


def summary(job: JobEntity) -> list[str]:
    """How a job ended: notices, receipt, failed items, where everything lies."""
    from batchpoint.entities.jobs import Reason

    lines = [f"Notice: {notice}" for notice in job.notices]
    if job.receipt is not None:
        lines += receipt_lines(job.receipt, withheld=job.reason is Reason.QUALITY_CHECK_FAILED)
    for name, output in job.outputs.items():
        if output.uri:
            lines.append(f"{name}: {output.uri}")
    if any(output.files for output in job.outputs.values()):
        lines.append(f"Download: batchpoint job download -n {job.name}")
    if job.receipt is not None and job.receipt.failed:
        lines.append(
            f"Failed items: batchpoint job errors -n {job.name}; again: batchpoint job retry-failed -n {job.name}"
        )
    return lines


def receipt_lines(receipt: Receipt, *, withheld: bool = False) -> list[str]:
    """The receipt in a line, and a line for each file that was not read whole; of output that was withheld, so."""
    parts = f"{receipt.ok:,} ok + {receipt.failed:,} failed + {receipt.skipped:,} skipped"
    counts = f"{receipt.items:,} {receipt.unit} = {parts}"
    state = "adds up" if receipt.balanced else "does NOT add up"
    rows = f"{receipt.output_rows:,} rows {'withheld' if withheld else 'written'}"
    lines = [f"Receipt: {counts}; {rows} ({state})"]
    trouble = [file for file in receipt.files if file.reason]
    lines += [f"  {file.file}: {file.reason}" for file in trouble[:10]]
    if len(trouble) > 10:
        lines.append(f"  and {len(trouble) - 10} more files; the receipt names them all")
    return lines


def _bar(job: Job) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    from batchpoint.client.notebook import fraction_of, progress_line

    columns = (SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(f"{job.name}: {job.entity.status.value}", total=1.0)

        def show(entity: JobEntity) -> None:
            text, done = f"{entity.name}: {_waiting(entity)}", 0.0
            if entity.progress is not None and entity.status.value == "running":
                text, done = progress_line(entity.progress), fraction_of(entity.progress)
            bars.update(task, description=text, completed=done)

        job.wait(raise_on_failure=False, on_progress=show)


def _lines(job: Job, state: State) -> None:
    import time

    from batchpoint.client.notebook import progress_line

    said, said_at = "", float("-inf")

    def show(entity: JobEntity) -> None:
        nonlocal said, said_at
        waiting = _waiting(entity)
        if waiting != said:
            said, said_at = waiting, time.monotonic()
            state.note(f"{entity.name}: {waiting}")
        elif entity.progress is not None and time.monotonic() - said_at >= LINE_SECONDS:
            said_at = time.monotonic()
            state.note(f"{entity.name}: {progress_line(entity.progress)}")

    show(job.entity)
    job.wait(raise_on_failure=False, on_progress=show)


def _waiting(entity: JobEntity) -> str:
    return f"{entity.status.value}{f' (waiting for {entity.waiting_for})' if entity.waiting_for else ''}"


def _search(query: str, value: Any) -> Any:
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return jmespath.search(query, value)
    except JMESPathError as fault:
        raise RequestError(f"--query {query!r} is not JMESPath: {fault}") from None


def _table(value: Any, columns: tuple[str, ...]) -> str:
    rows = value if isinstance(value, list) else [value]
    if not rows:
        return ""
    if not isinstance(rows[0], dict):
        return "\n".join(_cell(row) if not isinstance(row, list) else "  ".join(map(_cell, row)) for row in rows)
    names = [name for name in columns if any(name in row for row in rows)] or _plain_columns(rows)
    cells = [names, *([_table_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[position]) for line in cells) for position in range(len(names))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _plain_columns(rows: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if not any(isinstance(row.get(name), dict | list) for row in rows)]


def _tsv(value: Any) -> str:
    """As Azure's command line prints it: a line for each item, tabs between its values."""
    rows = value if isinstance(value, list) else [value]
    lines = []
    for row in rows:
        values = row.values() if isinstance(row, dict) else row if isinstance(row, list) else [row]
        lines.append("\t".join(_cell(item) for item in values))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    return text.replace("\n", " ").replace("\t", " ")


def _table_cell(value: Any) -> str:
    """As ``_cell``, for eyes: mappings in the words of messages (``store=east, day=1``), numbers without noise."""
    if isinstance(value, float):
        value = round(value, 6)
    if isinstance(value, dict):
        return ", ".join(f"{name}={_cell(each)}" for name, each in value.items())
    return _cell(value)


def _colored(text: str) -> str:
    import re

    return re.sub(
        r'^(\s*)("[^"]*")(?=:)', lambda found: f"{found[1]}{click.style(found[2], fg='cyan')}", text, flags=re.MULTILINE
    )
