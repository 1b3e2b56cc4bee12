"""``job``: create, validate, show, list, stream, wait, cancel, retry, download, errors, logs."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from batchpoint.cli.options import (
    Group,
    State,
    archived_of,
    archived_options,
    changes_of,
    common,
    file_option,
    limit_option,
    name_option,
    no_wait_option,
    set_option,
    tags_of,
    tags_option,
    unused_options,
    update_options,
)

if TYPE_CHECKING:
    from pathlib import Path

    from batchpoint.client.jobs import Job
    from batchpoint.entities.jobs import Job as JobEntity

JOB_COLUMNS = ("name", "type", "step_name", "status", "endpoint_name", "deployment_name", "queued_at", "finished_at")

STEP_COLUMNS = ("step", "status", "seconds", "rows", "job", "reused_from")


_NO_SHELL = "its processes run on the machine of the server; 'job logs' shows what they wrote"


@click.group("job", cls=Group, aliases={"log": "stream"}, absent={"connect-ssh": _NO_SHELL})
def job() -> None:
    """Jobs: start them, follow them, stop them, fetch what they wrote."""


def _web_option(command: Any) -> Any:
    return click.option("-e", "--web", is_flag=True, help="Tell the address of the job's page in the studio.")(command)


@job.command()
@file_option(required=True, text="YAML file of a pipeline, or of a command.")
@click.option("-n", "--name", help="Name of the job; one is made up when neither this nor the file gives one.")
@set_option
@click.option("--skip-validation", is_flag=True, help="Accepted; a job that cannot work is refused anyway.")
@click.option("-s", "--stream", "streamed", is_flag=True, help="Show the log and the progress until the job ends.")
@click.option("-a", "--save-as", metavar="FILE", help="Write the job's record into this YAML file.")
@_web_option
@no_wait_option
@common
def create(
    state: State,
    file: str,
    name: str | None,
    assignments: tuple[str, ...],
    skip_validation: bool,
    streamed: bool,
    save_as: str | None,
    web: bool,
) -> None:
    """Start a pipeline, or a command by itself. Prints the job; --stream follows it to its end."""
    del skip_validation  # Azure's command line has it; here the server looks at everything in one go
    named = (f"name={name}",) if name else ()
    started = state.client().jobs.create_or_update(file, set=(*assignments, *named))
    if save_as is not None:
        from pathlib import Path

        from batchpoint.cli.printing import render

        Path(save_as).write_text(render(_body(state, started), output="yaml") + "\n", encoding="utf-8")
    if web:
        _tell_address(state, started)
    if streamed:
        stream_to_end(state, started)
    if not streamed or state.output or state.query:
        state.show(_body(state, started))


@job.command()
@file_option(required=True, text="YAML file of a pipeline, or of a command.")
@set_option
@common
def validate(state: State, file: str, assignments: tuple[str, ...]) -> None:
    """Name every fault of a file, with its line; nothing is stored or started."""
    state.client().jobs.validate(file, set=assignments)
    state.note(f"{file} is valid.")


@job.command()
@name_option
@_web_option
@common
def show(state: State, name: str, web: bool) -> None:
    """Show one; a pipeline with its steps."""
    found = state.client().jobs.get(name)
    if web:
        _tell_address(state, found)
    if found.entity.repaired_by is not None:
        receipt = state.client().jobs.get(found.entity.repaired_by).entity.receipt
        rows = f": {receipt.output_rows:,} row{'s' if receipt.output_rows != 1 else ''}" if receipt is not None else ""
        state.note(f"Repaired by {found.entity.repaired_by}{rows}. What follows is how it was before.")
    body = _body(state, found)
    if state.output == "table" and not state.query and "steps" in body:
        state.show(body, columns=JOB_COLUMNS)
        click.echo()
        state.show(body["steps"], columns=STEP_COLUMNS)
    else:
        state.show(body)


@job.command("list")
@click.option("--status", help="queued, preparing, running, finalizing, completed, failed or canceled.")
@click.option("-e", "--endpoint-name", "endpoint", help="Jobs of this endpoint.")
@click.option("-p", "--parent-job-name", "parent", help="The steps of this pipeline job.")
@click.option("--schedule", help="Jobs of this schedule.")
@archived_options
@limit_option
@click.option("--all-results", is_flag=True, help="All of them.")
@common
def list_(
    state: State,
    status: str | None,
    endpoint: str | None,
    parent: str | None,
    schedule: str | None,
    archived_only: bool,
    include_archived: bool,
    limit: int | None,
    all_results: bool,
) -> None:
    """List jobs, the newest first; 50 when nothing else is said. Steps of pipelines are listed by their parent."""
    found = state.client().jobs.list(
        status=status and status.lower(),
        endpoint=endpoint,
        parent=parent,
        schedule=schedule,
        archived=archived_of(archived_only, include_archived),
        limit=None if all_results else limit or 50,
    )
    state.show([one.entity for one in found], columns=JOB_COLUMNS)


@job.command()
@name_option
@common
def stream(state: State, name: str) -> None:
    """Show the log and the progress until the job ends; of a pipeline, those of its steps."""
    stream_to_end(state, state.client().jobs.get(name))


@job.command("show-services")
@name_option
@unused_options("--node-index/-i", why="a job has one place where it is looked at")
@common
def show_services(state: State, name: str) -> None:
    """Show where a job is looked at."""
    state.show(state.record(state.client().jobs.get(name).entity)["services"])


@job.command()
@name_option
@click.option("--timeout", type=float, help="Seconds to wait at most.")
@common
def wait(state: State, name: str, timeout: float | None) -> None:
    """Wait for the end, showing progress; then print the job."""
    from batchpoint.cli.printing import end, follow

    waited = state.client().jobs.get(name)
    if timeout is None:
        follow(waited, state)
    else:
        try:
            waited.wait(timeout, raise_on_failure=False)
        except TimeoutError as late:
            raise click.ClickException(str(late)) from None
        end(waited)
    state.show(waited.entity)


@job.command()
@name_option
@common
def cancel(state: State, name: str) -> None:
    """Ask a job to stop. What is committed stays."""
    state.show(state.client().jobs.cancel(name).entity)


@job.command("retry-failed")
@name_option
@click.option("-s", "--stream", "streamed", is_flag=True, help="Wait for the end, showing progress.")
@click.option("--current-deployment", is_flag=True, help="Score with the deployment as it is now, not as it was.")
@common
def retry_failed(state: State, name: str, streamed: bool, current_deployment: bool) -> None:
    """Score only the failed items again and merge them into the same output; go on with a pipeline that failed."""
    _retry(state, name, streamed=streamed, current_deployment=current_deployment)


@job.command()
@name_option
@click.option("-s", "--stream", "streamed", is_flag=True, help="Wait for the end, showing progress.")
@common
def retry(state: State, name: str, streamed: bool) -> None:
    """Go on with a pipeline from its failed steps; of another job, score its failed items again."""
    _retry(state, name, streamed=streamed, current_deployment=False)


def _retry(state: State, name: str, *, streamed: bool, current_deployment: bool) -> None:
    again = state.client().jobs.retry_failed(name, current_deployment=current_deployment)
    if streamed:
        watch(state, again)
    if not streamed or state.output or state.query:
        state.show(_body(state, again))


@job.command()
@name_option
@click.option("-p", "--download-path", help="Folder to copy into.  [default: a folder named after the job]")
@click.option("--output-name", help="Which output; STEP.OUTPUT is that of a step.  [default: all]")
@click.option("--all", "everything", is_flag=True, help="Logs too, in the folder logs.")
@common
def download(state: State, name: str, download_path: str | None, output_name: str | None, everything: bool) -> None:
    """Copy the files of the outputs: predictions, failed items, receipt; or what a step wrote.

    With --all, or --output-name for a job of an endpoint, they lie in named-outputs/OUTPUT too, where scripts for Azure
    ML look for them. A job that failed has logs alone, which --all brings.
    """
    from pathlib import Path

    from batchpoint.client.connection import writing
    from batchpoint.errors import NotFoundError

    fetched = state.client().jobs.get(name)
    logs = fetched.logs() if everything else []
    folder = Path(download_path or name)
    try:
        fetched.download(folder, output_name=output_name)
    except NotFoundError:
        if output_name or not logs:
            raise
        state.note(f"Job {name} is {fetched.status} and has published nothing; there are its logs alone.")
    else:
        if everything or (output_name and fetched.entity.endpoint_name):
            _link_by_output(fetched, folder, Path(download_path or "."), output_name)
    if everything:
        for file in logs:
            target = Path(folder) / "logs" / file["path"].removeprefix("logs/")
            text = fetched.log(file["path"])
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
    state.note(f"Downloaded to {folder}")


def _link_by_output(job: Job, folder: Path, root: Path, output_name: str | None) -> None:
    """Put what was downloaded into ``named-outputs/<output>`` too. A step's outputs, which only we can name, stay."""
    import os
    import shutil

    from batchpoint.client.jobs import inside

    names = [name for name in job.entity.outputs if output_name in (None, name)]
    apart = output_name is None and len(names) > 1
    for name in names:
        for file in job.output_files(name):
            source = folder / name / file["path"] if apart else folder / file["path"]
            link = inside(root / "named-outputs" / name, file["path"])
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            try:
                os.link(source, link)
            except OSError:  # a file system without links
                shutil.copyfile(source, link)


@job.command()
@name_option
@common
def compare(state: State, name: str) -> None:
    """Show how the job's challenger compares with its champion; a table for people with -o table."""
    from batchpoint.cli.comparisons import comparison_lines

    state.show_or_tell(state.client().jobs.get(name).comparison(), comparison_lines)


@job.command()
@name_option
@common
def quality(state: State, name: str) -> None:
    """Show what the job's columns hold and how far they are from the reference; a table for people with -o table."""
    from batchpoint.cli.quality import quality_lines

    state.show_or_tell(state.client().jobs.get(name).quality(), quality_lines)


@job.command()
@name_option
@common
def errors(state: State, name: str) -> None:
    """List the items that failed, with file, row and error; of a pipeline the steps that did."""
    columns = ("step", "job", "file", "row", "attempt", "exception", "message")
    state.show(state.client().jobs.get(name).errors(), columns=columns)


@job.command()
@name_option
@click.option("--failed", "failing", is_flag=True, help="Those of which something failed or was skipped.")
@common
def models(state: State, name: str, failing: bool) -> None:
    """List what each key's model did, in a job with a model map."""
    columns = ("key", "model", "rows", "failed", "skipped", "seconds", "loads", "message")
    found = state.client().jobs.get(name).models(failing=failing)
    state.show([report.model_dump(mode="json", exclude_none=True) for report in found], columns=columns)


@job.command()
@name_option
@click.argument("path", required=False)
@common
def logs(state: State, name: str, path: str | None) -> None:
    """List the log files, or print one."""
    found = state.client().jobs.get(name)
    if path is None:
        state.show(found.logs(), columns=("path", "size"))
    else:
        click.echo(found.log(path), nl=False)


@job.command()
@name_option
@click.option("--description", help="What it is.")
@tags_option
@update_options
@_web_option
@common
def update(
    state: State, name: str, description: str | None, tags: tuple[str, ...], assignments: tuple[str, ...], web: bool
) -> None:
    """Change description or tags."""
    changes = changes_of(assignments, {"description": description, "tags": tags_of(tags)})
    changed = state.client().jobs.update(name, changes=changes)
    if web:
        _tell_address(state, changed)
    state.show(changed.entity)


@job.command()
@name_option
@common
def archive(state: State, name: str) -> None:
    """Hide a job from lists."""
    state.client().jobs.archive(name)


@job.command()
@name_option
@common
def restore(state: State, name: str) -> None:
    """Show an archived job in lists again."""
    state.client().jobs.restore(name)


def watch(state: State, job: Job) -> None:
    """Show a job until its end: the steps of a pipeline and what they log, of another job its progress."""
    if job.entity.type == "pipeline":
        stream_to_end(state, job)
    else:
        from batchpoint.cli.printing import follow

        follow(job, state)


def stream_to_end(state: State, job: Job) -> None:
    """Print what happens until the end, then how it ended; leaves with exit code 1 when that was not well.

    It goes to standard error when the job's record is asked for: that alone is to be read from standard output then.
    """
    from batchpoint.cli.printing import end, render, summary

    try:
        if state.only_errors:
            job.wait(raise_on_failure=False)
        else:
            job.stream(sys.stderr if state.output or state.query else sys.stdout, raise_on_failure=False)
    except KeyboardInterrupt:
        state.note(f"The job goes on. Stop it with 'batchpoint job cancel -n {job.name}'.")
        raise
    if job.entity.type == "pipeline":
        state.note(render(_steps(job), output="table", columns=STEP_COLUMNS))
    for line in summary(job.entity):
        state.note(line)
    end(job)


def _tell_address(state: State, job: Job) -> None:
    state.note(f"Job {job.name} is shown at {state.record(job.entity)['services']['Studio']['endpoint']}")


def _body(state: State, job: Job) -> dict[str, Any]:
    """The record of a job; of a pipeline with a line for each step that was started."""
    body: dict[str, Any] = state.record(job.entity)
    return {**body, "steps": _steps(job)} if job.entity.type == "pipeline" else body


def _steps(job: Job) -> list[dict[str, Any]]:
    return [_step(name, step.entity) for name, step in job.steps().items()]


def _step(name: str, job: JobEntity) -> dict[str, Any]:
    from batchpoint.entities.jobs import AZURE_STATUS

    seconds = (job.finished_at - job.started_at).total_seconds() if job.finished_at and job.started_at else None
    return {
        "step": name,
        "status": AZURE_STATUS[job.status],
        "job": job.name,
        "reused_from": job.reused_job_name,
        "seconds": None if seconds is None else round(seconds, 1),
        "rows": job.receipt.output_rows if job.receipt else None,
    }


@job.command()
@click.option("--older-than", required=True, metavar="AGE", help="Such as 90s, 30m, 4h or 2d.")
@click.option("--dry-run", is_flag=True, help="Show which jobs these are, and leave them alone.")
@common
def sweep(state: State, older_than: str, dry_run: bool) -> None:
    """Cancel every unfinished job that was started longer ago; they get the tag batchpoint.swept."""
    swept = state.client().jobs.sweep(_age(older_than), dry_run=dry_run)
    state.show([one.entity for one in swept], columns=JOB_COLUMNS)
    state.note(f"{len(swept)} {'would be' if dry_run else 'were'} canceled.")


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip().lower())
    if found is None:
        raise click.BadParameter(f"{text!r}: write a number and s, m, h or d, as 4h.", param_hint="--older-than")
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    return timedelta(**{units[found[2]]: float(found[1])})
