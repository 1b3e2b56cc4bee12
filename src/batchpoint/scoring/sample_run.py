"""A run that scores a sample of its input and forecasts the whole; it publishes nothing."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from batchpoint.entities.forecasts import Deadline, Forecast, OutputColumn, SampledError
from batchpoint.entities.jobs import Reason
from batchpoint.entities.quality import Quality
from batchpoint.scoring.estimate import Work, deadline_of, fitted, threshold_words, warm_up, wilson
from batchpoint.scoring.events import Commit, Event, Finish, Instruction, PartSucceeded, WorkerReady
from batchpoint.scoring.ledger import FailedItem, Record
from batchpoint.scoring.local_engine import Engine
from batchpoint.scoring.planner import Planner
from batchpoint.scoring.predictions_file import parts_in_order, read_schema, write_predictions
from batchpoint.scoring.publication import write_synced
from batchpoint.scoring.sample import SampledPlan
from batchpoint.scoring.scoring_run import ScoringRun
from batchpoint.scoring.spec import ScoringSpec, ThresholdSpec

FORECAST = "forecast.json"
"""File of the run's folder."""
MOST_ERRORS = 5
WRITING_BYTES_PER_SECOND = 200e6
"""What joining the output is reckoned with: a slow disk's pace."""


class SampleRun(ScoringRun):
    """One run of a sample, from its specification to its forecast."""

    def __init__(self, folder: Path, storage_options: Mapping[str, Mapping[str, Any]], stop: threading.Event) -> None:
        """Forget what an interrupted run of this folder had scored: a sample is measured in one go."""
        (folder / "ledger.jsonl").unlink(missing_ok=True)
        shutil.rmtree(folder / "segments", ignore_errors=True)
        super().__init__(folder, storage_options, stop)
        self._started_at = monotonic()
        self._ready_at: float | None = None
        self._memory: int | None = None
        self._sample: SampledPlan | None = None

    def _allowed(self, spec: ScoringSpec) -> ThresholdSpec:  # noqa: ARG002 -- a sample goes on whatever fails in it
        return ThresholdSpec()

    def _planner(self) -> Planner:
        return Planner(self._spec, self._options, self._folder, narrow=self._narrow)

    def _narrow(self, whole: Any) -> SampledPlan:
        workers = self._spec.instances * self._spec.processes_per_instance
        self._sample = SampledPlan(whole, self._spec, workers=workers)
        return self._sample

    def _score_all(self, engine: Engine, planner: Planner) -> Finish:
        try:
            finish = super()._score_all(engine, planner)
        finally:
            if self._sample is not None:
                self._sample.close()
        self._memory = engine.peak_memory()
        # That everything failed is what a forecast has to tell; only a script that cannot start leaves nothing to tell.
        return Finish(Reason.COMPLETED) if finish.reason is Reason.ALL_ITEMS_FAILED else finish

    def _note(self, engine: Engine, event: Event) -> None:
        if isinstance(event, WorkerReady) and self._ready_at is None:
            self._ready_at = monotonic()
        if isinstance(event, PartSucceeded) and self._sample is not None and event.id in self._given:
            score, _ = self._given[event.id]
            more = event.challenge.challenger_seconds if event.challenge else 0.0
            self._sample.scored(event.worker, score.stop - score.start, sum(event.seconds.values()) + more)
        super()._note(engine, event)

    def _obey(self, engine: Engine, instruction: Instruction) -> Event | None:
        answer = super()._obey(engine, instruction)
        if isinstance(instruction, Commit) and self._sample is not None:
            self._sample.committed()
        return answer

    def _begin_to_look(self) -> None:
        """Not at all: what a sample's columns hold is not what the whole would say."""

    def _publish(self, planner: Planner, notices: list[str], _: Future[Quality] | None) -> Reason:
        """Write the forecast instead."""
        assert self._sample is not None, "the plan was made, or the run had failed"
        startup = (self._ready_at or monotonic()) - self._started_at
        records = list(self._ledger.in_order())
        found = forecast(self._spec, self._sample, records, self._folder, startup=startup, memory=self._memory)
        write_synced(self._folder / FORECAST, found.model_dump_json(indent=2).encode())
        return self._end(Reason.COMPLETED, None, notices=[*found.notices, *notices], planner=planner)


def forecast(
    spec: ScoringSpec, plan: SampledPlan, records: list[Record], folder: Path, *, startup: float, memory: int | None
) -> Forecast:
    """What the records of a sample say about the whole."""
    counted = plan.counted
    assert counted is not None, "the sample was drawn from the counted plan"
    items = sum(record.items for record in records)
    failures = [failure for record in records for failure in record.failures]
    rate = wilson(len(failures), items)
    columns, row_bytes = _output(spec, records, folder)
    rows = sum(part.rows for record in records for part in record.parts) / max(1, items) * counted.items
    work = work_of(plan, startup=startup, output_bytes=rows * (row_bytes or 0))
    workers = spec.instances * spec.processes_per_instance
    pace = work.fit.call(work.items / max(1, work.mini_batches)) * work.mini_batches / max(1, work.items)
    limits = spec.thresholds
    return Forecast(
        job=spec.job,
        unit=plan.unit,
        items=counted.items,
        items_are_exact=counted.is_exact,
        items_how=counted.how,
        bytes=plan.total_bytes,
        mini_batches=counted.mini_batches,
        sampled_items=items,
        sampled_files=len({name for record in records for name in record.files}),
        failed_items=len(failures),
        failure_rate=rate,
        errors=[_error(failure) for failure in failures[:MOST_ERRORS]],
        thresholds=_thresholds(limits, rate, work),
        workers=workers,
        startup_seconds=work.startup,
        seconds=work.seconds(workers),
        items_per_second=1 / pace if pace else None,
        peak_memory_per_worker=memory,
        peak_memory=memory * workers if memory else None,
        output_columns=columns,
        deadline=_deadline(spec, work),
        output_bytes=None if row_bytes is None else round(rows * row_bytes),
        notices=[*plan.notices, *_doubts(plan, items)],
    )


def work_of(plan: SampledPlan, *, startup: float, output_bytes: float) -> Work:
    """The whole job as the estimate takes it."""
    counted = plan.counted
    assert counted is not None, "the sample was drawn from the counted plan"
    fit = fitted(plan.calls or plan.first_calls)
    return Work(
        items=counted.items,
        mini_batches=counted.mini_batches,
        startup=startup + (warm_up(plan.first_calls, fit) if plan.calls else 0.0),
        planning=counted.seconds,
        writing=output_bytes / WRITING_BYTES_PER_SECOND,
        fit=fit,
        calls=len(plan.calls),
    )


def _deadline(spec: ScoringSpec, work: Work) -> Deadline | None:
    finish_by = spec.sample.finish_by if spec.sample else None
    if finish_by is None:
        return None
    return deadline_of(work, spec.instances * spec.processes_per_instance, finish_by, datetime.now(UTC))


def _thresholds(limits: ThresholdSpec, rate: Any, work: Work) -> list[str]:
    return threshold_words(
        rate,
        items=work.items,
        mini_batches=work.mini_batches,
        item_limit=limits.items,
        mini_batch_limit=limits.mini_batches,
        percent_limit=limits.percent,
    )


def _output(spec: ScoringSpec, records: list[Record], folder: Path) -> tuple[list[OutputColumn], float | None]:
    """Columns of the predictions and bytes of a row, by writing those of the sample as the job would."""
    parts = parts_in_order(records)
    rows = sum(part.rows for part in parts)
    if spec.output.action != "append_row" or not rows:
        return [], None
    target = folder / f"sample.{spec.output.format}"
    if spec.output.table is None:
        write_predictions(parts, folder / "segments", target, spec.output.format)
        schema = _read_back(target, spec.output.format) or read_schema(parts, folder / "segments")
    else:
        schema = read_schema(parts, folder / "segments")
    size = target.stat().st_size / rows if target.exists() else None
    return [OutputColumn(name=field.name, type=str(field.type)) for field in schema], size


def _read_back(path: Path, form: str) -> pa.Schema | None:
    """The schema of a predictions file; empty for Azure's bytes, None where no reader takes it: values of two kinds."""
    size = path.stat().st_size  # in one block: values may be long, and hold line feeds
    try:
        if form == "csv":
            lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
            return pyarrow.csv.read_csv(path, pyarrow.csv.ReadOptions(block_size=size + 1), lines).schema
        if form == "jsonl":
            return pyarrow.json.read_json(path, pyarrow.json.ReadOptions(block_size=size + 1)).schema
    except pa.ArrowInvalid:
        return None
    return pyarrow.parquet.read_schema(path) if form == "parquet" else pa.schema([])


def _error(failure: FailedItem) -> SampledError:
    error = failure.error
    return SampledError(file=failure.file, row=failure.row, exception=error.type, message=error.message)


def _doubts(plan: SampledPlan, items: int) -> list[str]:
    """What makes this forecast weaker than it looks."""
    counted = plan.counted
    assert counted is not None, "the sample was drawn from the counted plan"
    whole = counted.items / max(1, counted.mini_batches)
    largest = max((call.items for call in plan.calls), default=0)
    doubts = []
    if len(plan.calls) < 3:
        timed = f"Only {len(plan.calls)} of the sample's calls" if plan.calls else "No call of the sample"
        doubts.append(f"{timed} could be timed, so the time is a rough guess.")
    if largest and largest < whole / 2 and items < counted.items:
        doubts.append(
            f"The largest call had {largest:,} {plan.unit}, a mini-batch has about {whole:,.0f}: memory may be higher."
        )
    return doubts
