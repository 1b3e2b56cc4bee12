"""What champion and challenger wrote → the challenger's predictions file and ``comparison.json``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pyarrow as pa

from batchpoint.entities.comparisons import ChallengerFailure, Comparison
from batchpoint.scoring.challenge import Challenge, Rows
from batchpoint.scoring.comparison import PairedColumn, key_columns, paired, paired_columns
from batchpoint.scoring.ledger import Part, Record
from batchpoint.scoring.predictions_file import read_schema, read_tables, write_predictions
from batchpoint.scoring.publication import write_synced
from batchpoint.scoring.spec import ScoringSpec

MOST_FAILURES = 20
BATCH_ROWS = 65_536
"""Rows that are compared at once."""


def write_comparison(
    spec: ScoringSpec,
    records: Sequence[Record],
    segments: Path,
    staging: Path,
    *,
    receipt_name: str,
    unit: Literal["rows", "files"],
) -> Comparison:
    """Write ``challenger.<ending>``, in the form of the predictions, and ``comparison.json`` beside the receipt.

    ``records`` are in the order of the input. Without predictions (``summary_only``) there are none of the challenger
    either; into a table they are not written, but as parquet.
    """
    challenges = [(part, part.challenge) for record in records for part in _in_order(record)]
    if spec.output.action == "append_row":
        form = "parquet" if spec.output.table else spec.output.format
        ending = ".parquet" if spec.output.table else PurePosixPath(spec.output.file_name).suffix or ".csv"
        target = staging / beside(receipt_name, "challenger", ending)
        rows = [piece for _, challenge in challenges if challenge for piece in challenge.predictions]
        write_predictions(_parts(rows), segments, target, form)
    comparison = compare(spec, records, challenges, segments, unit)
    write_synced(
        staging / beside(receipt_name, "comparison", ".json"), f"{comparison.model_dump_json(indent=2)}\n".encode()
    )
    return comparison


def beside(receipt_name: str, word: str, ending: str) -> str:
    """The name of a file that appears beside a receipt, numbered or prefixed as that is."""
    return word.join(receipt_name.removesuffix(".json").rsplit("receipt", 1)) + ending


def compare(
    spec: ScoringSpec,
    records: Sequence[Record],
    challenges: Sequence[tuple[Part, Challenge | None]],
    segments: Path,
    unit: Literal["rows", "files"],
) -> Comparison:
    """Compare what both made of the same items."""
    assert spec.challenger is not None, "asked only for runs with a challenger"
    there = [challenge for _, challenge in challenges if challenge is not None]
    asked = [challenge for challenge in there if challenge.asked]
    tally = _Tally()
    for champion, challenger in _results(asked, segments):
        tally.add(champion, challenger)
    tally.flush()
    items = sum(record.ok for record in records)
    refused = sum(each.stop - each.start for challenge in asked for each in challenge.refusals)
    results = sum(part.rows or part.ok for part, _ in challenges)
    given = sum(challenge.asked for challenge in asked)
    return Comparison(
        job=spec.job,
        endpoint=spec.endpoint,
        champion=spec.deployment,
        challenger=spec.challenger.deployment,
        unit=unit,
        items=items,
        items_asked=given,
        champion_failed=sum(record.failed for record in records),
        challenger_failed=refused + sum(challenge.missing for challenge in asked),
        rows_compared=tally.rows,
        agreement=tally.agreeing / tally.rows if tally.rows else None,
        agreement_of_all=tally.agreeing / results if results else 0.0,
        champion_seconds_per_1000=_pace([challenge.champion_seconds for challenge in asked], given),
        challenger_seconds_per_1000=_pace([challenge.challenger_seconds for challenge in asked], given),
        columns=[column.result() for column in tally.columns or ()],
        failures=_failures(asked),
        notices=[*dict.fromkeys(challenge.notice for challenge in there if challenge.notice), *tally.doubts()],
    )


@dataclass
class _Tally:
    """Paired rows, gathered until there are enough of them to be worth looking at."""

    columns: list[PairedColumn] | None = None
    rows: int = 0
    agreeing: int = 0
    waiting: list[tuple[pa.Table, pa.Table]] = field(default_factory=list)
    waiting_rows: int = 0
    seen: int = 0

    def add(self, champion: pa.Table, challenger: pa.Table) -> None:
        """One part's result of each."""
        keys = key_columns(champion.schema), key_columns(challenger.schema)
        self.seen += champion.num_rows
        if self.columns is None:
            self.columns = paired_columns(champion.schema, challenger.schema, keys)
        if not all(keys) or not self.columns:
            return
        ours, theirs = paired(champion, challenger, keys)
        named = ours.select(keys[0]).rename_columns([name.removeprefix("input_") for name in keys[0]])
        values = ours.select([column.name for column in self.columns])
        for at, name in enumerate(named.column_names):
            values = values.add_column(at, f"key {name}", named.column(name))
        self.waiting.append((values, theirs.select([column.challenger_name for column in self.columns])))
        self.waiting_rows += len(values)
        if self.waiting_rows >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Compare what waits."""
        if not self.waiting_rows or self.columns is None:
            return
        ours, theirs = (pa.concat_tables([pair[side] for pair in self.waiting]).combine_chunks() for side in (0, 1))
        self.waiting, self.waiting_rows = [], 0
        width = ours.num_columns - len(self.columns)
        keys = ours.select(range(width)).rename_columns([name[4:] for name in ours.column_names[:width]])
        agree = np.ones(len(ours), np.bool_)
        for at, column in enumerate(self.columns):
            agree &= column.add(keys, _array(ours.column(width + at)), _array(theirs.column(at)))
        self.rows += len(agree)
        self.agreeing += int(agree.sum())

    def doubts(self) -> Iterator[str]:
        """Why rows were not compared, where it is not that one of them is missing."""
        if self.columns is not None and not self.columns:
            yield "The two results have no column of one name, so they were not compared."
        elif self.seen and not self.rows:
            yield "No row of the results could be told to stand for the same item, so they were not compared."


def _results(asked: Sequence[Challenge], segments: Path) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The two results of each part, all of one schema each; a part of which one side has nothing is left out."""
    sides = [_parts(challenge.champion) for challenge in asked], [_parts(challenge.challenger) for challenge in asked]
    schemas = [read_schema([part for parts in side for part in parts], segments) for side in sides]
    for ours, theirs in zip(*sides, strict=True):
        tables = [
            [*read_tables(parts, segments, schema)] for parts, schema in zip((ours, theirs), schemas, strict=True)
        ]
        if all(tables):
            yield pa.concat_tables(tables[0]), pa.concat_tables(tables[1])


def _in_order(record: Record) -> list[Part]:
    return sorted(record.parts, key=lambda part: part.start)


def _parts(rows: Iterable[Rows]) -> list[Part]:
    """The rows as parts, which is what segments are read by."""
    return [
        Part(0, 0, each.segment, each.offset, each.length, each.rows, 0, each.encoding, each.columns) for each in rows
    ]


def _array(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found.cast(found.type.value_type) if pa.types.is_dictionary(found.type) else found


def _pace(seconds: Sequence[float], items: int) -> float | None:
    return 1000 * sum(seconds) / items if items else None


def _failures(asked: Iterable[Challenge]) -> list[ChallengerFailure]:
    found = [refusal for challenge in asked for refusal in sorted(challenge.refusals, key=lambda each: each.start)]
    return [
        ChallengerFailure(
            file=each.file,
            row=each.row,
            items=each.stop - each.start,
            exception=each.error.type,
            message=each.error.message,
        )
        for each in found[:MOST_FAILURES]
    ]
