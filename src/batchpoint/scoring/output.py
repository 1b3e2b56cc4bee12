"""The end of a run: ledger → predictions, errors file and receipt, all published at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from batchpoint.entities.jobs import FileReceipt, Receipt
from batchpoint.errors import OutputError
from batchpoint.scoring.comparison_file import write_comparison
from batchpoint.scoring.errors_file import write_errors
from batchpoint.scoring.file_per_key import Spans, write_key_files
from batchpoint.scoring.ledger import Record
from batchpoint.scoring.predictions_file import parts_in_order, read_schema, read_tables, write_predictions
from batchpoint.scoring.publication import (
    Destination,
    PlaceTakenError,
    Stores,
    check_free,
    child,
    choose_destination,
    earlier_runs,
    files_under,
    forget_destination,
    link_files,
    place,
    staging_folder,
    write_synced,
)
from batchpoint.scoring.receipt import make_receipt
from batchpoint.scoring.spec import Location, ScoringSpec
from batchpoint.scoring.step_data import publish_outputs
from batchpoint.scoring.table_output import write_table

__all__ = ["Published", "Stores", "check_free", "publish", "withhold"]

WITHHELD = "withheld"
"""Folder of the run's folder with an output that did not pass its checks."""

TABLE_JOBS = "table_jobs.json"
"""File of a run's folder: the jobs that have written rows of this run, or of one that scores it again, into a table."""


class PlanSummary(Protocol):
    """What the receipt takes from the plan of the input."""

    @property
    def unit(self) -> Literal["rows", "files"]:
        """What items are."""

    @property
    def skipped(self) -> Sequence[FileReceipt]:
        """Files that were left out on purpose."""


@dataclass(frozen=True)
class Published:
    """What a run has published."""

    receipt: Receipt
    outputs: dict[str, Any]
    """For ``outcome.json``: ``{"score": {"uri", "folder", "files", "table"?}}``; ``uri`` is the predictions' place.
    A step's outputs have their own names."""
    notices: list[str] = field(default_factory=list)


def publish(
    spec: ScoringSpec,
    run_folder: Path,
    records: Iterable[Record],
    plan: PlanSummary,
    stores: Stores,
    *,
    planned: Mapping[str, int],
    key_files: Mapping[int, Spans] | None = None,
) -> Published:
    """Write everything that the job puts out, and let it appear under its final names at once.

    May be called again after it was interrupted anywhere, by SIGKILL too: it ends in the same files.

    Args:
        spec: The run.
        run_folder: Its folder, with ``segments/`` and ``user_output/``.
        records: The committed mini-batches; segment paths may be absolute (rows of the run that is tried again).
        plan: Unit of the items, and the files that were skipped.
        stores: Opens places that are not on this machine.
        planned: Items of each input file as counted by the plan: what the receipt is checked against.
        key_files: What of each mini-batch goes to which file, for a job that writes one for each key.

    Raises:
        OutputError: something lies where the output should go, the disk is full, a segment is damaged, or the
            database refuses the rows. Nothing is left under a final name of a file that was not published.
    """
    ordered = sorted(records, key=lambda record: record.mini_batch)
    key_names = sorted({name for spans in (key_files or {}).values() for _, name in spans})
    try:
        while True:
            destination = choose_destination(spec, run_folder, stores, key_files=key_names)
            staging = staging_folder(spec, destination, run_folder)
            try:
                made = _stage(spec, run_folder, ordered, plan, planned, key_files or {}, destination, staging)
                return _place(spec, run_folder, made, stores, destination, staging)
            except PlaceTakenError:
                forget_destination(run_folder)
                if spec.output.if_exists != "version":
                    raise
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        message = (
            f"The output could not be written to {spec.output.folder.url}: {error}. "
            "Make room there, or make it writable, and start the job again: what was scored is kept."
        )
        raise OutputError(message) from error


def withhold(
    spec: ScoringSpec,
    run_folder: Path,
    records: Sequence[Record],
    plan: PlanSummary,
    stores: Stores,
    *,
    planned: Mapping[str, int],
    key_files: Mapping[int, Spans] | None = None,
) -> Published:
    """Write what would have been published into the run's folder instead, to be looked at. Arguments as ``publish``.

    Raises:
        OutputError: the disk is full, or a segment is damaged.
    """
    output = spec.output.model_copy(
        update={"folder": Location(url=str(run_folder / WITHHELD)), "owns_folder": True, "if_exists": "overwrite"}
    )
    if output.table is not None:  # the rows are Arrow's then
        output = output.model_copy(update={"table": None, "format": "parquet", "file_name": "predictions.parquet"})
    inside = spec.model_copy(update={"output": output, "retry_of": None, "staged_outputs": [], "challenger": None})
    try:
        return publish(inside, run_folder, records, plan, stores, planned=planned, key_files=key_files)
    finally:
        forget_destination(run_folder)  # it was none: whoever scores this run's failed items again must not go there


def _stage(
    spec: ScoringSpec,
    run_folder: Path,
    records: Sequence[Record],
    plan: PlanSummary,
    planned: Mapping[str, int],
    key_files: Mapping[int, Spans],
    destination: Destination,
    staging: Path,
) -> Published:
    """Put everything together in the staging folder."""
    rows, by_key = _write_rows(spec, run_folder, records, key_files, destination, staging)
    write_errors(records, staging / destination.errors, spec.output.errors_format)
    receipt = make_receipt(
        spec.job, plan.unit, records, planned=planned, skipped=plan.skipped, rows_written=rows, key_files=by_key
    )
    write_synced(staging / destination.receipt, f"{receipt.model_dump_json(indent=2)}\n".encode())
    notices = _compare(spec, run_folder, records, plan, staging, destination)
    notices += [
        f"The script's own file {name} was published with script- before its name: the job writes a file of that name."
        for name in link_files(run_folder / "user_output", staging)
    ]
    return Published(receipt=receipt, outputs={}, notices=notices)


def _place(
    spec: ScoringSpec, run_folder: Path, staged: Published, stores: Stores, destination: Destination, staging: Path
) -> Published:
    """Let what is staged appear."""
    has_predictions = spec.output.action == "append_row" and spec.output.table is None and spec.output.one_file
    files = files_under(staging)
    others = publish_outputs(spec.job, spec.staged_outputs, run_folder, stores)
    place(spec, destination, staging, stores)
    if spec.retry_of is not None and destination.owned and destination.local is not None:
        files = files_under(destination.local)  # what scripts of the earlier run wrote is kept
    predictions = child(destination.folder, destination.predictions)
    score: dict[str, Any] = {
        "uri": predictions.url if has_predictions else destination.folder.url,
        "folder": destination.folder.url,
        "files": files,
    }
    if spec.output.table is not None:
        score["table"] = spec.output.table.name
    return replace(staged, outputs={**others, spec.output.name: score})


def _compare(
    spec: ScoringSpec,
    run_folder: Path,
    records: Sequence[Record],
    plan: PlanSummary,
    staging: Path,
    destination: Destination,
) -> list[str]:
    """Write what the challenger predicted and how it compares. Its failure is told, and costs no prediction."""
    if spec.challenger is None:
        return []
    try:
        segments = run_folder / "segments"
        name = destination.receipt
        return write_comparison(spec, records, segments, staging, receipt_name=name, unit=plan.unit).notices
    except Exception as error:  # noqa: BLE001 -- results of any shape: the champion's are published whatever they are
        return [f"The challenger could not be compared: {type(error).__name__}: {error}"]


def _write_rows(
    spec: ScoringSpec,
    run_folder: Path,
    records: Sequence[Record],
    key_files: Mapping[int, Spans],
    destination: Destination,
    staging: Path,
) -> tuple[int, dict[str, int]]:
    """Write the rows where they belong: files, a database table, or nowhere (``summary_only``).

    Answers with how many there are, and how many are in the file of each key.
    """
    output, segments = spec.output, run_folder / "segments"
    if output.action == "summary_only":
        return sum(part.rows for record in records for part in record.parts), {}
    parts = parts_in_order(records)
    if output.table is not None:
        schema = read_schema(parts, segments)
        jobs = _table_jobs(spec, run_folder)
        return write_table(output.table, jobs, schema, read_tables(parts, segments, schema)), {}
    by_key: dict[str, int] = {}
    if output.file_per_key is not None:
        written = write_key_files(
            records, key_files, output, run_folder, lambda name: staging / destination.numbered(name)
        )
        by_key = {destination.numbered(name): rows for name, rows in written.items()}
    if not output.one_file:
        return sum(by_key.values()), by_key
    target, header = staging / destination.predictions, output.dataframe_header
    return write_predictions(parts, segments, target, output.format, dataframe_header=header), by_key


def _table_jobs(spec: ScoringSpec, run_folder: Path) -> list[str]:
    """This job, and those whose rows it replaces: the jobs that it scores again, and earlier ones that did so.

    The first run of such a family keeps the list; a job is in it before its rows are in the table.
    """
    family = [run_folder, *earlier_runs(spec)]
    note = family[-1] / TABLE_JOBS
    known = json.loads(note.read_text()) if note.exists() else []
    jobs = list(dict.fromkeys([spec.job, *(ScoringSpec.read(folder).job for folder in family[1:]), *known]))
    write_synced(note, json.dumps(jobs).encode())
    return jobs
