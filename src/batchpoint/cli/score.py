"""``score``: score data at once. No server, nothing registered; the same runner, receipt and errors file as a job."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchpoint.cli.options import Command, State, diagnostics, set_option
from batchpoint.errors import AlreadyExistsError, InvalidEntityError, PlatformError

if TYPE_CHECKING:
    from batchpoint.entities.jobs import Job, Progress
    from batchpoint.scoring.spec import ScoringSpec

POLL_SECONDS = 0.1
LINE_SECONDS = 5.0


@click.command(cls=Command)
@click.option("--model", required=True, help="Folder of an MLflow model, folder with a score.py, or a script.")
@click.option("--script", help="Scoring script, when --model is what it loads.")
@click.option("--data", required=True, help="File, folder, glob or URL to score.")
@click.option("--out", "out", "-o", required=True, metavar="FILE", help="Predictions: .csv, .jsonl or .parquet.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes; one for each processor when not given.")
@click.option("--mini-batch-size", type=click.IntRange(1), help="Files, or with --split rows rows, of a mini-batch.")
@click.option("--split", type=click.Choice(["auto", "files", "rows", "bytes"]), help="What a mini-batch is cut by.")
@click.option("--dataframe", is_flag=True, help="Call the script's run() with a DataFrame of rows, not with paths.")
@click.option("--key", multiple=True, metavar="COLUMN", help="Input column written instead of file and row.")
@click.option("--passthrough", multiple=True, metavar="COLUMN", help="Input column repeated beside each prediction.")
@click.option("--include", multiple=True, metavar="GLOB", help="Take only these files of a folder.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these files out.")
@click.option("--recursive", is_flag=True, help="Explore sub-folders.")
@click.option("--overwrite", is_flag=True, help="Replace what lies there.")
@set_option
@diagnostics
def score(
    state: State,
    model: str,
    script: str | None,
    data: str,
    out: str,
    assignments: tuple[str, ...],
    **options: Any,
) -> None:
    """Score data at once, with no server and nothing registered.

    Beside the predictions lie NAME.errors.jsonl, with a line for each failed item, and NAME.receipt.json. --set takes
    the keys of a deployment: --set settings.retry_settings.timeout=60, --set batchpoint.csv.delimiter=";".
    """
    folder = Path(tempfile.mkdtemp(prefix="batchpoint-score-"))
    spec = _specification(folder, model, script, data, Path(out), assignments, options)
    spec.write(folder)
    outcome = _run(folder, state)
    if outcome.get("reason") == "completed":
        _report(outcome, Path(out), state)
        shutil.rmtree(folder, ignore_errors=True)
        return
    _fail(outcome, folder, Path(out), state)


def _specification(
    folder: Path,
    model: str,
    script: str | None,
    data: str,
    out: Path,
    assignments: tuple[str, ...],
    options: dict[str, Any],
) -> ScoringSpec:
    """The run, from what was asked; the same rules as a deployment's jobs.

    Raises:
        InvalidEntityError: the model, the script or the data is not there, or an option is not allowed.
        AlreadyExistsError: something lies where the predictions should go.
    """
    model_path = _existing(model, "--model")
    script_path = _script_of(model_path, script)

    from batchpoint.background.scoring_spec import Resolved, build_spec
    from batchpoint.entities.assets import Model
    from batchpoint.entities.resources import Compute
    from batchpoint.operations.places import Place

    job = _job(script_path, data, out, assignments, options)
    place, folder_of_output = job.inputs["input"].path, str(out.parent.absolute())
    spec = build_spec(
        job,
        Resolved(
            python=sys.executable,
            compute=Compute(name="local"),
            home=folder,
            output=Place(folder_of_output, folder_of_output),
            model=Model(name="model", version="1", path=str(model_path), type=_type_of(model_path)),
            model_path=model_path,
            code_dir=script_path.parent if script_path else None,
            inputs=(Place(place, place),),
            tabular_input=_holds_rows(place),
        ),
    )
    stem = out.stem
    names = {"errors_name": f"{stem}.errors.{spec.output.errors_format}", "receipt_name": f"{stem}.receipt.json"}
    output = spec.output.model_copy(update={**names, "owns_folder": False})
    _refuse_what_lies_there(out, output.if_exists)
    return spec.model_copy(
        update={
            "output": output,
            "fork_server": None,
            "fork_server_idle_seconds": 0,
            "sketches": spec.quality.checks_columns,
        }
    )


def _job(script: Path | None, data: str, out: Path, assignments: tuple[str, ...], options: dict[str, Any]) -> Job:
    from batchpoint.client.files import absolute
    from batchpoint.entities.documents import Document
    from batchpoint.entities.endpoints import BatchDeployment
    from batchpoint.entities.jobs import Input, Job, Output
    from batchpoint.entities.local_paths import is_local

    settings = {
        "max_concurrency_per_instance": options["workers"] or _processors(),
        "mini_batch_size": options["mini_batch_size"],
        "output_file_name": out.name,
    }
    extras = {
        "split": options["split"],
        "mini_batch_type": "dataframe" if options["dataframe"] else None,
        "key_columns": list(options["key"]),
        "passthrough": list(options["passthrough"]),
        "if_exists": "overwrite" if options["overwrite"] else None,
    }
    value: dict[str, Any] = {
        "name": "score",
        "endpoint_name": "local",
        "settings": {key: item for key, item in settings.items() if item is not None},
        "batchpoint": {key: item for key, item in extras.items() if item not in (None, [])},
    }
    if script is not None:
        value["code_configuration"] = {"code": str(script.parent), "scoring_script": script.name}
    document = Document(value=value, name="score").with_settings(assignments)
    place = absolute(data, Path.cwd()) if is_local(data) else data
    chosen = {key: list(options[key]) for key in ("include", "exclude")} | {"recursive": options["recursive"]}
    return Job(
        name=f"score-{datetime.now(UTC):%Y%m%d-%H%M%S}",
        endpoint_name="local",
        deployment_name="score",
        deployment=document.part(BatchDeployment),
        inputs={"input": Input(path=place, **chosen)},
        outputs={"score": Output(path=f"{out.parent.absolute()}/", type="uri_folder")},
    )


def _processors() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _existing(path: str, option: str) -> Path:
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise InvalidEntityError(f"{option} {path!r} does not exist (looked for {found}).")
    return found


def _script_of(model: Path, script: str | None) -> Path | None:
    """The scoring script; None for an MLflow model that is scored without one."""
    if script is not None:
        return _existing(script, "--script")
    if model.suffix == ".py":
        return model
    if (model / "MLmodel").is_file():
        return None
    if (model / "score.py").is_file():
        return model / "score.py"
    message = (
        f"--model {str(model)!r} is neither an MLflow model (a folder with a file MLmodel), nor a folder with a "
        "score.py, nor a script. Name the scoring script with --script."
    )
    raise InvalidEntityError(message)


def _type_of(model: Path) -> Any:
    return "mlflow_model" if (model / "MLmodel").is_file() else "custom_model"


def _holds_rows(data: str) -> bool:
    """Whether the first file of the input is a table."""
    import glob

    from batchpoint.background.scoring_spec import TABULAR_ENDINGS

    path = Path(data)
    if path.is_dir():
        files = sorted(str(file) for file in path.rglob("*") if file.is_file())
    else:
        files = [data] if path.is_file() or "://" in data else sorted(glob.glob(data, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not files:
        raise InvalidEntityError(f"--data {data!r}: there is nothing to score.")
    return files[0].lower().endswith(TABULAR_ENDINGS)


def _refuse_what_lies_there(out: Path, if_exists: str) -> None:
    """Say so before the work, not after it."""
    if if_exists == "fail" and out.exists():
        raise AlreadyExistsError(f"{out} exists already. Choose another name, or replace it with --overwrite.")


def _run(folder: Path, state: State) -> dict[str, Any]:
    """Carry out the run, showing its progress; answers with its outcome."""
    (folder / "logs").mkdir(exist_ok=True)
    log = folder / "logs" / "runner.log"
    with log.open("wb") as log_file, _progress(state) as show:
        runner = subprocess.Popen(
            [sys.executable, "-m", "batchpoint.scoring.runner"],
            stdin=subprocess.PIPE,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )
        assert runner.stdin is not None
        runner.stdin.write(json.dumps({"folder": str(folder), "storage_options": {}}).encode() + b"\n")
        runner.stdin.close()
        _follow(runner, folder, show)
    outcome = folder / "outcome.json"
    if not outcome.is_file():
        last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise PlatformError(f"The run ended without an outcome ({runner.returncode}). The end of {log}:\n{last_lines}")
    return dict(json.loads(outcome.read_text()))


def _follow(runner: subprocess.Popen[bytes], folder: Path, show: Any) -> None:
    """Poll until the runner ends. The first interrupt asks it to stop and keeps waiting; the second kills it."""
    interrupted = False

    def stop(*_: object) -> None:
        nonlocal interrupted
        if interrupted:
            runner.kill()
        interrupted = True
        (folder / "cancel").touch()

    before = signal.signal(signal.SIGINT, stop)
    try:
        while runner.poll() is None:
            show(_progress_in(folder))
            time.sleep(POLL_SECONDS)
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        shutil.rmtree(folder, ignore_errors=True)
        raise KeyboardInterrupt


def _progress_in(folder: Path) -> Progress | None:
    from batchpoint.entities.jobs import Progress

    try:
        return Progress.model_validate_json((folder / "progress.json").read_bytes())
    except FileNotFoundError:
        return None


@contextmanager
def _progress(state: State) -> Iterator[Any]:
    """A function that shows progress: a bar on a terminal, else a line every few seconds."""
    from batchpoint.client.notebook import fraction_of, progress_line

    if state.only_errors:
        yield lambda _: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bars

        columns = (SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}", markup=False))
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("starting", total=1.0)

            def redraw(progress: Progress | None) -> None:
                if progress is not None:
                    bars.update(task, description=progress_line(progress), completed=fraction_of(progress))

            yield redraw
    else:
        said_at = time.monotonic()

        def line(progress: Progress | None) -> None:
            nonlocal said_at
            if progress is not None and time.monotonic() - said_at >= LINE_SECONDS:
                said_at = time.monotonic()
                state.note(progress_line(progress))

        yield line


def _report(outcome: dict[str, Any], out: Path, state: State) -> None:
    from batchpoint.cli.printing import receipt_lines
    from batchpoint.entities.jobs import Receipt

    receipt = Receipt.model_validate(outcome["receipt"])
    for notice in outcome.get("notices") or []:
        state.note(f"Notice: {notice}")
    for line in receipt_lines(receipt):
        click.echo(line)
    click.echo(f"Predictions: {out}")
    errors = next(out.parent.glob(f"{out.stem}.errors.*"), None)
    if receipt.failed and errors is not None:
        click.echo(f"Failed items: {errors}")
    click.echo(f"Receipt file: {out.with_name(f'{out.stem}.receipt.json')}")


def _fail(outcome: dict[str, Any], folder: Path, out: Path, state: State) -> None:
    from batchpoint.client.jobs import failure_text
    from batchpoint.entities.jobs import Job, JobError, JobStatus

    error = JobError.model_validate(outcome["error"]) if outcome.get("error") else None
    job = Job(name=out.name, status=JobStatus.FAILED, reason=outcome.get("reason"), error=error)
    text = failure_text(job).replace(f"Job {out.name} failed", "Scoring failed").split("\nMore in ")[0]
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {text}", err=True)
    kept = folder / "errors.jsonl"
    if kept.is_file() and kept.stat().st_size:
        errors = out.with_name(f"{out.stem}.errors.jsonl")
        shutil.copyfile(kept, errors)
        state.note(f"Failed items: {errors}")
    state.note(f"Logs: {folder / 'logs'}")
    raise click.exceptions.Exit(1)
