"""``job``: show, list, stream, wait, cancel, retry, download, errors, logs."""

from __future__ import annotations

import click

from batchpoint.cli.options import (
    State,
    archived_of,
    archived_options,
    changes_of,
    common,
    limit_option,
    name_option,
    tags_of,
    tags_option,
    update_options,
)

JOB_COLUMNS = ("name", "status", "endpoint_name", "deployment_name", "queued_at", "finished_at")


@click.group("job")
def job() -> None:
    """Jobs: follow them, stop them, fetch what they wrote."""


@job.command()
@name_option
@common
def show(state: State, name: str) -> None:
    """Show one."""
    state.show(state.client().jobs.get(name).entity.body())


@job.command("list")
@click.option("--status", help="queued, preparing, running, finalizing, completed, failed or canceled.")
@click.option("-e", "--endpoint-name", "endpoint", help="Jobs of this endpoint.")
@click.option("--schedule", help="Jobs of this schedule.")
@archived_options
@limit_option
@click.option("--all-results", is_flag=True, help="All of them.")
@common
def list_(
    state: State,
    status: str | None,
    endpoint: str | None,
    schedule: str | None,
    archived_only: bool,
    include_archived: bool,
    limit: int | None,
    all_results: bool,
) -> None:
    """List jobs, the newest first; 50 when nothing else is said."""
    found = state.client().jobs.list(
        status=status,
        endpoint=endpoint,
        schedule=schedule,
        archived=archived_of(archived_only, include_archived),
        limit=None if all_results else limit or 50,
    )
    state.show([one.entity.body() for one in found], columns=JOB_COLUMNS)


@job.command()
@name_option
@common
def stream(state: State, name: str) -> None:
    """Show the log and the progress until the job ends."""
    from batchpoint.cli.printing import end, summary

    followed = state.client().jobs.get(name)
    try:
        followed.stream(raise_on_failure=False)
    except KeyboardInterrupt:
        state.note(f"The job goes on. Stop it with 'batchpoint job cancel -n {name}'.")
        raise
    for line in summary(followed.entity):
        state.note(line)
    end(followed.entity)


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
        end(waited.entity)
    state.show(waited.entity.body())


@job.command()
@name_option
@common
def cancel(state: State, name: str) -> None:
    """Ask a job to stop. What is committed stays."""
    state.show(state.client().jobs.cancel(name).entity.body())


@job.command("retry-failed")
@name_option
@click.option("-s", "--stream", "streamed", is_flag=True, help="Wait for the end, showing progress.")
@click.option("--current-deployment", is_flag=True, help="Score with the deployment as it is now, not as it was.")
@common
def retry_failed(state: State, name: str, streamed: bool, current_deployment: bool) -> None:
    """Score only the failed items again and merge them into the same output."""
    again = state.client().jobs.retry_failed(name, current_deployment=current_deployment)
    if streamed:
        from batchpoint.cli.printing import follow

        follow(again, state)
    else:
        state.show(again.entity.body())


@job.command()
@name_option
@click.option("-p", "--download-path", help="Folder to copy into.  [default: a folder named after the job]")
@click.option("--output-name", type=click.Choice(["score"]), help="Which output; there is one.")
@click.option("--all", "everything", is_flag=True, help="Logs too, in the folder logs.")
@common
def download(state: State, name: str, download_path: str | None, output_name: str | None, everything: bool) -> None:  # noqa: ARG001 - accepted, as Azure's command line does; there is one output
    """Copy the files of the output: predictions, failed items, receipt."""
    from pathlib import Path

    fetched = state.client().jobs.get(name)
    folder = fetched.download(download_path or name)
    if everything:
        for file in fetched.logs():
            target = Path(folder) / "logs" / file["path"].removeprefix("logs/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(fetched.log(file["path"]), encoding="utf-8")
    state.note(f"Downloaded to {folder}")


@job.command()
@name_option
@common
def compare(state: State, name: str) -> None:
    """Show how the job's challenger compares with its champion; a table for people with -o table."""
    comparison = state.client().jobs.get(name).comparison()
    if state.output == "table" and state.query is None:
        from batchpoint.cli.comparisons import comparison_lines

        click.echo("\n".join(comparison_lines(comparison)))
    else:
        state.show(comparison.model_dump(mode="json", exclude_none=True))


@job.command()
@name_option
@common
def errors(state: State, name: str) -> None:
    """List the items that failed, with file, row and error."""
    columns = ("file", "row", "attempt", "exception", "message")
    state.show(state.client().jobs.get(name).errors(), columns=columns)


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
@common
def update(
    state: State, name: str, description: str | None, tags: tuple[str, ...], assignments: tuple[str, ...]
) -> None:
    """Change description or tags."""
    changes = changes_of(assignments, {"description": description, "tags": tags_of(tags)})
    state.show(state.client().jobs.update(name, changes=changes).entity.body())


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
