"""The input of a run → its mini-batches, lazily, in a stable order that depends on the input and the settings alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from batchpoint.entities.jobs import FileReceipt
from batchpoint.errors import InputError
from batchpoint.scoring import key_batches, mltable, tabular
from batchpoint.scoring.csv_records import SAMPLE_ROWS, UnreadableRowsError, is_number
from batchpoint.scoring.fetching import fetched
from batchpoint.scoring.mini_batches import ErrorInfo, InputFile, MiniBatch, Slice, TableSchema, Unit, error_info
from batchpoint.scoring.model_index import ModelIndex
from batchpoint.scoring.partitions import BLOCK, Partitioner
from batchpoint.scoring.spec import ScoringSpec, SplitSpec, TableShape
from batchpoint.scoring.table_schema import mismatch, schema_of, shaped, signature_of
from batchpoint.scoring.tabular import Format, Head
from batchpoint.storage.datastores import Stores
from batchpoint.storage.inputs import StoredFile, list_input

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".tiff", ".bmp", ".gif"})

SMALLEST_SLICE = 1 << 20
LARGEST_SLICE = 1 << 21
SLICES = 32
"""A mini-batch has about a 32nd of the input's bytes, but no less than 1 MiB, which is worth the 7 ms that one call of
a scikit-learn pipeline costs, and no more than 2 MiB: with more, the arrays leave the processor's caches (8 MiB
cost a seventh more). It also bounds memory, and what a lost worker repeats."""
_LATER_SAMPLE = 100
"""Rows of each further file that are compared with the signature before it is scored."""


@dataclass
class Plan:
    """The mini-batches of a run, found while they are asked for. Iterate it once.

    The same input and settings give the same mini-batches in the same order, whoever asks.
    """

    unit: Unit
    total_bytes: int
    """Bytes of the input as stored; 0 where a store does not tell."""
    schema: TableSchema | None = None
    """What is known of the columns when the unit is rows."""
    skipped: list[FileReceipt] = field(default_factory=list)
    """Files that are not scored, and those without a data row; complete once the plan is exhausted."""
    notices: list[str] = field(default_factory=list)
    """What a user should know about how the input was read."""
    planned_bytes: int = 0
    """Bytes of the files that are planned so far."""
    total_known: bool = False
    """Whether the plan is exhausted."""
    mini_batches: Iterator[MiniBatch] = field(default_factory=lambda: iter(()))

    def __iter__(self) -> Iterator[MiniBatch]:
        yield from self.mini_batches
        self.total_known = True


def plan(spec: ScoringSpec, stores: Stores, folder: Path) -> Plan:
    """Cut the input of a run into mini-batches, lazily.

    Files are listed, and read until the first one that can be scored, before this returns; the rest is read while the
    plan advances, remote files being fetched into ``folder/inputs`` a few ahead. A file that cannot be read is a
    mini-batch of its own with ``unreadable`` set.

    Raises:
        InputError: the input is missing, holds no file, no row, or no file that fits the model's signature.
        DatastoreError: a store does not answer.
    """
    spec = mltable.resolved(spec)
    places = [(location.url, location.datastore) for location in spec.input.locations]
    listing = list_input(
        stores, places, include=spec.input.include, exclude=spec.input.exclude, recursive=spec.input.recursive
    )
    unit = _unit(spec, listing.files)
    result = Plan(unit, sum(file.size for file in listing.files))
    for left_out in listing.skipped:
        reason = left_out.reason
        result.skipped.append(FileReceipt(file=left_out.name, items=1, ok=0, failed=0, skipped=1, reason=reason))
    files = fetched(listing.files, stores, folder)
    if unit == "files":
        by_key = bool(spec.split.partition_keys)
        result.mini_batches = (_files_by_key if by_key else _of_files)(result, files, spec)
    else:
        _plan_rows(result, files, spec, folder)
    return result


def slice_bytes(total: int) -> int:
    """How many bytes a mini-batch of rows should have when nothing is said."""
    return min(max(total // SLICES, SMALLEST_SLICE), LARGEST_SLICE)


def _unit(spec: ScoringSpec, files: list[StoredFile]) -> Unit:
    if spec.script.kind == "script" and spec.script.takes == "paths":
        return "files"
    tables = any(tabular.format_of(file.name) for file in files)
    if spec.script.kind == "mlflow" and not tables and any(_is_image(file.name) for file in files):
        return "files"
    if not tables:
        kinds = ", ".join(sorted({_ending(file.name) for file in files}))
        message = f"Nothing to score: no file is a table. Found {kinds}; csv, parquet, jsonl or json is needed."
        raise InputError(message)
    return "rows"


# --------------------------------------------------------------------------------------------------------------- files


def _of_files(
    result: Plan, files: Iterator[InputFile | tuple[StoredFile, ErrorInfo]], spec: ScoringSpec
) -> Iterator[MiniBatch]:
    index = 0
    chunk: list[InputFile] = []
    for file in files:
        problem = file[1] if isinstance(file, tuple) else None
        local = InputFile(file[0].name, "", file[0].size) if isinstance(file, tuple) else file
        if problem is None and spec.script.kind == "mlflow" and not _is_image(local.name):
            problem = _unsupported(local.name)
        result.planned_bytes += local.size
        if problem is None:
            chunk.append(local)
        if chunk and (problem is not None or len(chunk) == spec.split.files):
            yield MiniBatch(index, "files", files=tuple(chunk))
            index, chunk = index + 1, []
        if problem is not None:
            yield MiniBatch(index, "files", files=(local,), unreadable=problem)
            index += 1
    if chunk:
        yield MiniBatch(index, "files", files=tuple(chunk))


def _files_by_key(
    result: Plan, files: Iterator[InputFile | tuple[StoredFile, ErrorInfo]], spec: ScoringSpec
) -> Iterator[MiniBatch]:
    """A mini-batch for each combination of keys, in the order of their first files; then what could not be placed."""
    keys, shape = spec.split.partition_keys, spec.table or TableShape()
    unknown = [key for key in keys if key not in shape.partition_columns]
    if unknown:
        message = f"The partition keys {', '.join(unknown)} are not in batchpoint.partition_format, which names files."
        raise InputError(message)
    groups: dict[tuple[str, ...], list[InputFile]] = {}
    unreadable: list[tuple[InputFile, ErrorInfo]] = []
    for file in files:
        local = InputFile(file[0].name, "", file[0].size) if isinstance(file, tuple) else file
        result.planned_bytes += local.size
        made = _made_of_name(local.name, shape)
        if isinstance(file, tuple):
            unreadable.append((local, file[1]))
        elif made is None:
            unreadable.append((local, _no_partition(local.name)))
        else:
            groups.setdefault(tuple(made[key] for key in keys), []).append(file)
    index = 0
    for values, members in groups.items():
        yield MiniBatch(index, "files", files=tuple(members), partition=tuple(zip(keys, values, strict=True)))
        index += 1
    for local, error in unreadable:
        yield MiniBatch(index, "files", files=(local,), unreadable=error)
        index += 1


def _made_of_name(name: str, shape: TableShape) -> dict[str, str] | None:
    """What the partition format makes of a file's name; None when it does not fit."""
    if shape.partition_pattern is None:
        return {}
    match = re.fullmatch(shape.partition_pattern, name)
    return None if match is None else dict(zip(shape.partition_columns, match.groups(), strict=True))


def _no_partition(name: str) -> ErrorInfo:
    return ErrorInfo("PartitionMismatch", f"{name} does not fit the partition_format.")


# ---------------------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True, slots=True)
class _Table:
    """A tabular file that is ready to be cut."""

    file: InputFile
    """As the user knows it."""
    plain: InputFile
    """Uncompressed and in UTF-8."""
    kind: Format
    head: Head


@dataclass(frozen=True, slots=True)
class _Unreadable:
    file: InputFile
    error: ErrorInfo


def _plan_rows(
    result: Plan, files: Iterator[InputFile | tuple[StoredFile, ErrorInfo]], spec: ScoringSpec, folder: Path
) -> None:
    """Look at files until one can be scored, pin the schema from it, and leave the rest for later."""
    signature = signature_of(spec.model.path) if spec.script.kind == "mlflow" and spec.model else None
    later_sample = _LATER_SAMPLE if signature else 0
    tables = (
        _table(file, spec, signature, folder, SAMPLE_ROWS if result.schema is None else later_sample) for file in files
    )
    first: list[_Table | _Unreadable] = []
    for table in tables:
        first.append(table)
        if isinstance(table, _Table) and _has_rows(table, spec):
            result.schema = schema_of(table.head, signature, spec.table)
            result.notices.extend(_doubts(table, spec))
            break
    if result.schema is None:
        _refuse(first, spec)
    later = _chained(first, tables)
    if result.schema is not None:
        _check_keys(result.schema, spec)
    if spec.split.partition_keys:
        result.mini_batches = _rows_by_key(result, later, spec, folder)
    else:
        result.mini_batches = _of_rows(result, later, spec)


def _chained(
    first: list[_Table | _Unreadable], tables: Iterator[_Table | _Unreadable]
) -> Iterator[_Table | _Unreadable]:
    yield from first
    yield from tables


def _table(
    file: InputFile | tuple[StoredFile, ErrorInfo],
    spec: ScoringSpec,
    signature: tuple[dict[str, Any], ...] | None,
    folder: Path,
    sample: int,
) -> _Table | _Unreadable:
    if isinstance(file, tuple):
        return _Unreadable(InputFile(file[0].name, "", file[0].size), file[1])
    kind = tabular.format_of(file.name)
    if kind is None:
        return _Unreadable(file, _unsupported(file.name))
    try:
        plain = tabular.prepared(file, kind, spec.csv, folder)
        head = tabular.head_of(plain, kind, spec.csv, sample)
    except (UnreadableRowsError, OSError) as error:
        return _Unreadable(file, error_info(error))
    shape = spec.table
    if shape and _made_of_name(file.name, shape) is None:
        return _Unreadable(file, _no_partition(file.name))
    named = kind != "csv" or spec.csv.header or bool(spec.csv.column_names)
    report = mismatch(shaped(head, shape) if shape else head, signature, named=named)
    if report and head.columns:
        return _Unreadable(file, ErrorInfo("SignatureMismatch", f"{file.name} does not fit the model: {report}"))
    return _Table(file, plain, kind, head)


def _has_rows(table: _Table, spec: ScoringSpec) -> bool:
    try:
        cuts = tabular.cut(table.plain, table.kind, spec.csv, table.head, size=SMALLEST_SLICE, rows=None)
        return next(cuts, None) is not None
    except UnreadableRowsError:
        return False


def _refuse(first: list[_Table | _Unreadable], spec: ScoringSpec) -> None:
    """No file has rows that fit: an error, unless files are damaged, which then fail one by one."""
    bad = [table for table in first if isinstance(table, _Unreadable)]
    mismatches = [table for table in bad if table.error.type == "SignatureMismatch"]
    if mismatches:
        more = f" So do {len(mismatches) - 1} more files." if len(mismatches) > 1 else ""
        raise InputError(f"{mismatches[0].error.message}{more}")
    if not bad:
        where = ", ".join(location.url for location in spec.input.locations)
        raise InputError(f"Nothing to score: {where} holds no data row.")


@dataclass
class _Open:
    """The mini-batch that is being filled."""

    slices: list[Slice] = field(default_factory=list)
    size: int = 0
    rows: int = 0
    files: int = 0
    columns: object = None

    def add(self, piece: Slice, columns: object) -> None:
        self.files += not self.slices or self.slices[-1].file != piece.file
        self.slices.append(piece)
        self.size += piece.length
        self.rows += piece.rows
        self.columns = columns

    def has_room(self, piece: Slice, columns: object, split: SplitSpec, size: int) -> bool:
        """Small files are packed together as long as their columns are the same; asked for N files, N are taken.

        A mini-batch whose size in bytes was asked for stays within one file. Source: Azure ML's tabular datasets.
        """
        if split.by == "files":
            return self.files < split.files or self.slices[-1].file == piece.file
        if columns != self.columns:
            return False
        if split.bytes is not None and self.slices[-1].file != piece.file:
            return False
        if split.by == "rows" and split.rows:
            return self.rows + piece.rows <= split.rows
        return self.size + piece.length <= size


def _of_rows(result: Plan, tables: Iterator[_Table | _Unreadable], spec: ScoringSpec) -> Iterator[MiniBatch]:
    size = spec.split.bytes or slice_bytes(result.total_bytes)
    index = 0
    filling = _Open()
    window = _Window(spec.table.skip if spec.table else 0, spec.table.take if spec.table else None)
    for table in tables:
        result.planned_bytes += table.file.size
        columns = None if isinstance(table, _Unreadable) else (table.kind, table.head.columns)
        for piece in window.of(_pieces(result, table, spec, size), spec):
            if filling.slices and (
                isinstance(piece, ErrorInfo) or not filling.has_room(piece, columns, spec.split, size)
            ):
                yield MiniBatch(index, "rows", slices=tuple(filling.slices))
                index, filling = index + 1, _Open()
            if isinstance(piece, ErrorInfo):
                yield MiniBatch(index, "rows", files=(table.file,), unreadable=piece)
                index += 1
            else:
                filling.add(piece, columns)
    if filling.slices:
        yield MiniBatch(index, "rows", slices=tuple(filling.slices))
    elif index == 0:
        raise InputError("Nothing to score: skip and take of the MLTable leave no row.")


def _doubts(table: _Table, spec: ScoringSpec) -> Iterator[str]:
    """Says when the first row of a headerless csv was perhaps taken for its header. 0, 1, 2… is what pandas writes."""
    names = table.head.columns
    counted = tuple(str(number) for number in range(len(names)))
    if table.kind == "csv" and spec.csv.header and names != counted and all(map(is_number, names)):
        yield (
            f"The first line of {table.file.name} holds numbers alone ({', '.join(names[:4])}…) and was taken for the "
            "names of its columns, so it is not scored. If it is data, set batchpoint.csv.header to false."
        )


def _check_keys(schema: TableSchema, spec: ScoringSpec) -> None:
    known = {*schema.columns, *schema.partition_columns}
    unknown = [key for key in spec.split.partition_keys if key not in known]
    found = ", ".join((*schema.columns, *schema.partition_columns))
    if unknown:
        raise InputError(f"The input has no column {', '.join(unknown)} to partition by. It has {found}.")
    wanted = [name for name in (*spec.output.key_columns, *spec.output.passthrough) if name != "*"]
    absent = [name for name in wanted if name not in known]
    if absent:
        message = f"The input has no column {', '.join(absent)}, named as key or to be passed through. It has {found}."
        raise InputError(message)


def _rows_by_key(
    result: Plan, tables: Iterator[_Table | _Unreadable], spec: ScoringSpec, folder: Path
) -> Iterator[MiniBatch]:
    """Mini-batches of the rows of each key, in the order of the keys' first rows; then what could not be read."""
    keys, shape = spec.split.partition_keys, spec.table or TableShape()
    schema = result.schema
    types = dict(zip(schema.columns, schema.types, strict=True)) if schema else {}
    partitioner = Partitioner(keys, types, spec.csv, folder, key_batches.LONGEST_RUN if spec.model_map else None)
    unreadable: list[tuple[InputFile, ErrorInfo]] = []
    window = _Window(shape.skip, shape.take)
    for table in tables:
        result.planned_bytes += table.file.size
        made = _made_of_name(table.file.name, shape) or {}
        for piece in window.of(_pieces(result, table, spec, BLOCK), spec):
            if isinstance(piece, ErrorInfo):
                unreadable.append((table.file, piece))
            elif isinstance(table, _Table):
                partitioner.add(piece, table.head.columns, made, table.head.offset)
    partitioner.close()
    index = 0
    if spec.model_map is not None:
        models = ModelIndex.read(folder, spec.model_map, keys)
        found = key_batches.many_together(partitioner.groups.values(), models)
    else:
        found = key_batches.one_for_each_key(partitioner.groups.values(), keys)
    for mini_batch in found:
        yield replace(mini_batch, index=index)
        index += 1
    for file, error in unreadable:
        yield MiniBatch(index, "rows", files=(file,), unreadable=error)
        index += 1


@dataclass
class _Window:
    """The rows of the whole table that an MLTable's ``skip`` and ``take`` leave."""

    skip: int
    take: int | None

    def of(self, pieces: Iterator[Slice | ErrorInfo], spec: ScoringSpec) -> Iterator[Slice | ErrorInfo]:
        """Those pieces of a file, in order, that are within the window; the first and the last perhaps shortened.

        A file that cannot be read hides how many rows it has: it fails, and counts for none.
        """
        if self.take == 0:
            return
        for piece in pieces:
            if isinstance(piece, ErrorInfo):
                yield piece
                continue
            first = min(self.skip, piece.rows)
            last = piece.rows if self.take is None else min(first + self.take, piece.rows)
            self.skip -= first
            if self.take is not None:
                self.take -= last - first
            if first < last:
                yield piece if last - first == piece.rows else shortened(piece, first, last, spec)
            if self.take == 0:
                return


def shortened(piece: Slice, first: int, last: int, spec: ScoringSpec) -> Slice:
    """The rows ``first`` to ``last`` of a slice as a slice."""
    offset, length = piece.offset, piece.length
    if piece.format in {"csv", "jsonl"}:
        begin, end = tabular.row_bytes(piece.file, piece.format, spec.csv, (offset, length), (first, last))
        offset, length = offset + begin, end - begin
    return replace(piece, offset=offset, length=length, first_row=piece.first_row + first, rows=last - first)


def _pieces(result: Plan, table: _Table | _Unreadable, spec: ScoringSpec, size: int) -> Iterator[Slice | ErrorInfo]:
    if isinstance(table, _Unreadable):
        yield table.error
        return
    rows = spec.split.rows if spec.split.by == "rows" else None
    found = False
    try:
        for cut in tabular.cut(table.plain, table.kind, spec.csv, table.head, size=None if rows else size, rows=rows):
            found = True
            yield Slice(table.plain, table.kind, cut.offset, cut.length, cut.first_row, cut.rows)
    except (UnreadableRowsError, OSError) as error:
        found = True
        yield error_info(error)
    if not found:
        reason = "no data rows" if table.head.columns else "empty file"
        result.skipped.append(FileReceipt(file=table.file.name, items=0, ok=0, failed=0, reason=reason))


def _is_image(name: str) -> bool:
    return PurePosixPath(name.lower()).suffix in IMAGES


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.removeprefix(".").lower() or "no ending"


def _unsupported(name: str) -> ErrorInfo:
    return ErrorInfo("UnsupportedFileType", f"File type '{_ending(name)}' is not supported")
