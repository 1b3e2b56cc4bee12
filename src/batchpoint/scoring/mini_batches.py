"""Files or row slices → MiniBatch, lazily, in a stable order that depends on the input and the settings alone."""

from __future__ import annotations

import itertools
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from batchpoint.entities.jobs import FileReceipt
from batchpoint.errors import BatchpointError, InputError
from batchpoint.scoring import mltable, tabular
from batchpoint.scoring.csv_records import SAMPLE_ROWS, UnreadableRowsError, is_number
from batchpoint.scoring.model_index import KeyModel, ModelIndex
from batchpoint.scoring.packing import packed
from batchpoint.scoring.partitions import BLOCK, Partitioner, Values
from batchpoint.scoring.slices import row_numbers
from batchpoint.scoring.spec import ScoringSpec, SplitSpec, TableShape
from batchpoint.scoring.tabular import Format, Head
from batchpoint.storage.datastores import Stores
from batchpoint.storage.inputs import StoredFile, list_input

Unit = Literal["rows", "files"]


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to score, already on this machine."""

    name: str
    """Path relative to the input's root, with forward slashes: what users see in keys, errors and receipt."""
    path: str
    """Absolute local path."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A contiguous run of data rows of one tabular file."""

    file: InputFile
    format: Literal["csv", "jsonl", "json", "parquet"]
    offset: int
    """First byte of the slice (csv, jsonl); the first row within the file's row groups counts by ``first_row``."""
    length: int
    """Bytes of the slice (csv, jsonl)."""
    first_row: int
    """Index, within the file's data rows, of the first row of the slice; counted from 0."""
    rows: int
    numbers: str | None = None
    """Path of the numbers that gathered rows have in the file, eight bytes each; ``first_row`` counts in it then."""

    def row_numbers(self, first: int, last: int) -> Sequence[int]:
        """The numbers in the file of the slice's rows ``first`` to ``last``, counted from 0."""
        return row_numbers({"first_row": self.first_row, "numbers": self.numbers}, first, last)


@dataclass(frozen=True, slots=True)
class KeySpan:
    """The rows of one key within a mini-batch of a model map, and the model that scores them."""

    key: tuple[tuple[str, str], ...]
    """Names and values, as text."""
    model: KeyModel | None
    """None where the map has no model for the key."""
    rows: int


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as data: what crosses process borders instead of a pickled exception."""

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """The part of the input given to one ``run()`` call. Its items are files, or rows."""

    index: int
    unit: Unit
    files: tuple[InputFile, ...] = ()
    """Its items when the unit is files."""
    slices: tuple[Slice, ...] = ()
    """Its items, in order, when the unit is rows."""
    spans: tuple[KeySpan, ...] = ()
    """The keys of its rows, in order, when each has a model of its own."""
    partition: tuple[tuple[str, Any], ...] = ()
    """The partition keys and their values, which all its items share."""
    unreadable: ErrorInfo | None = None
    """Set when the file (the only one in ``files``) could not be planned at all: it counts as one failed item."""

    @property
    def items(self) -> int:
        """How many items it holds."""
        if self.unreadable is not None or self.unit == "files":
            return len(self.files)
        return sum(piece.rows for piece in self.slices)


@dataclass(frozen=True, slots=True)
class TableSchema:
    """What planning learnt about the columns, pinned so that every slice is read alike."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    """Arrow type names as ``str(pyarrow.DataType)`` gives them."""
    strict: tuple[str, ...] = ()
    """Columns whose types come from the model's signature: a value that does not convert fails its row. The types of
    the others are guessed from the head of the first file, and widened where a slice holds something else."""
    keep: tuple[str, ...] | None = None
    """The columns that ``run()`` receives, in their order; None means all that are read."""
    drop: tuple[str, ...] = ()
    """Columns that ``run()`` does not receive."""
    path_column: str | None = None
    partition_pattern: str | None = None
    partition_columns: tuple[str, ...] = ()
    """Columns made of file names: see ``spec.TableShape``."""


IMAGES = frozenset({".png", ".jpg", ".jpeg", ".tiff", ".bmp", ".gif"})

SMALLEST_SLICE = 1 << 20
LARGEST_SLICE = 1 << 21
SLICES = 32
"""A mini-batch has about a 32nd of the input's bytes, but no less than 1 MiB, which is worth the 7 ms that one call of
a scikit-learn pipeline costs, and no more than 2 MiB: with more, the arrays leave the processor's caches (8 MiB
cost a seventh more). It also bounds memory, and what a lost worker repeats."""

LONGEST_RUN = 1 << 25
"""A key of a model map that has more bytes than this is scored in several mini-batches: rows become frames, and those
take memory. A run of gathered rows stays whole, which is a block at most."""

_FETCHERS = 4
_FETCH_AHEAD = 8
"""Remote files fetched before they are needed."""

_LATER_SAMPLE = 100
"""Rows of each further file that are compared with the signature before it is scored."""

_ARROW_TYPES = {
    "boolean": "bool", "integer": "int32", "long": "int64", "float": "float", "double": "double", "string": "string",
    "binary": "binary", "datetime": "timestamp[ns]",
}  # fmt: skip
"""MLflow's column types in Arrow's words."""


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
    fetched = _fetched(listing.files, stores, folder)
    if unit == "files":
        by_key = bool(spec.split.partition_keys)
        result.mini_batches = (_files_by_key if by_key else _of_files)(result, fetched, spec)
    else:
        _plan_rows(result, fetched, spec, folder)
    return result


def slice_bytes(total: int) -> int:
    """How many bytes a mini-batch of rows should have when nothing is said."""
    return min(max(total // SLICES, SMALLEST_SLICE), LARGEST_SLICE)


def signature_of(model_path: str) -> tuple[dict[str, Any], ...] | None:
    """The inputs of the signature in a model's ``MLmodel`` file; None when it has none.

    Raises:
        InputError: the file is missing or is not an MLmodel.
    """
    import yaml  # noqa: PLC0415 -- only MLflow models need it

    path = Path(model_path) / "MLmodel"
    try:
        content = yaml.safe_load(path.read_bytes())
        inputs = (content.get("signature") or {}).get("inputs")
        return tuple(json.loads(inputs)) if inputs else None
    except (OSError, yaml.YAMLError, AttributeError, ValueError) as error:
        raise InputError(f"{path} is not a readable MLmodel file: {error}") from None


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


def _fetched(
    files: list[StoredFile], stores: Stores, folder: Path
) -> Iterator[InputFile | tuple[StoredFile, ErrorInfo]]:
    """The files on this machine, in order; remote ones are fetched a few ahead by threads."""
    if all(stores.is_local(file.url) for file in files):
        for file in files:  # no Path for a path that is whole: among many files that is what planning costs
            path = file.url if file.url.startswith("/") else str(Path(file.url).absolute())
            yield InputFile(file.name, path, file.size)
        return
    waiting = iter(files)
    ahead: deque[tuple[StoredFile, Future[InputFile]]] = deque()
    with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch") as pool:
        try:
            while True:
                for upcoming in itertools.islice(waiting, _FETCH_AHEAD - len(ahead)):
                    ahead.append((upcoming, pool.submit(_fetch, upcoming, stores, folder)))
                if not ahead:
                    return
                file, future = ahead.popleft()
                try:
                    local = future.result()
                except InputError as error:
                    yield file, _info(error)
                else:
                    yield local
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fetch(file: StoredFile, stores: Stores, folder: Path) -> InputFile:
    if (path := stores.local_path(file.url)) is not None:
        return InputFile(file.name, str(path.absolute()), file.size)
    parts = [part for part in PurePosixPath(file.name).parts if part not in {"..", "/"}]
    target = folder / "inputs" / "fetched" / Path(*parts)
    if not target.exists():  # a resumed run has it already: files are fetched whole or not at all
        stores.fetch(file.url, target, file.datastore)
    return InputFile(file.name, str(target), target.stat().st_size)


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
            result.schema = _schema(table.head, signature, spec.table)
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
        return _Unreadable(file, _info(error))
    shape = spec.table
    if shape and _made_of_name(file.name, shape) is None:
        return _Unreadable(file, _no_partition(file.name))
    named = kind != "csv" or spec.csv.header or bool(spec.csv.column_names)
    report = _mismatch(_shaped(head, shape) if shape else head, signature, named=named)
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
    partitioner = Partitioner(keys, types, spec.csv, folder, LONGEST_RUN if spec.model_map else None)
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
    for mini_batch in (_packed if spec.model_map else _one_for_each_key)(partitioner.groups.values(), spec, folder):
        yield replace(mini_batch, index=index)
        index += 1
    for file, error in unreadable:
        yield MiniBatch(index, "rows", files=(file,), unreadable=error)
        index += 1


_Group = tuple[Values, list[Slice]]
"""The values of a key, and the runs of rows that have it."""


def _one_for_each_key(groups: Iterable[_Group], spec: ScoringSpec, _folder: Path) -> Iterator[MiniBatch]:
    keys = spec.split.partition_keys
    for values, runs in groups:
        yield MiniBatch(0, "rows", slices=tuple(runs), partition=tuple(zip(keys, values, strict=True)))


def _packed(groups: Iterable[_Group], spec: ScoringSpec, folder: Path) -> Iterator[MiniBatch]:
    """Many keys in a mini-batch. What a key has beyond ``LONGEST_RUN`` bytes follows in mini-batches of its own."""
    assert spec.model_map is not None
    index = ModelIndex.read(folder, spec.model_map, spec.split.partition_keys)
    pieces = [(values, runs) for values, all_runs in groups for runs in _bounded(all_runs)]
    sizes = [sum(run.length for run in runs) for _, runs in pieces]
    for together in packed(sizes):
        chosen = pieces[together.start : together.stop]
        spans = [KeySpan(*index.of(values), sum(run.rows for run in runs)) for values, runs in chosen]
        yield MiniBatch(0, "rows", slices=_joined(run for _, runs in chosen for run in runs), spans=tuple(spans))


def _joined(runs: Iterable[Slice]) -> tuple[Slice, ...]:
    """The same rows in as few slices as there can be: keys that were gathered lie one behind the other."""
    joined: list[Slice] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last is not None and _is_followed_by(last, run):
            joined[-1] = replace(last, rows=last.rows + run.rows, length=last.length + run.length)
        else:
            joined.append(run)
    return tuple(joined)


def _is_followed_by(last: Slice, run: Slice) -> bool:
    if last.file != run.file or last.numbers != run.numbers or last.first_row + last.rows != run.first_row:
        return False
    return run.format not in {"csv", "jsonl"} or last.offset + last.length == run.offset


def _bounded(runs: list[Slice]) -> Iterator[list[Slice]]:
    part: list[Slice] = []
    size = 0
    for run in runs:
        if part and size + run.length > LONGEST_RUN:
            yield part
            part, size = [], 0
        part.append(run)
        size += run.length
    yield part


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
        yield _info(error)
    if not found:
        reason = "no data rows" if table.head.columns else "empty file"
        result.skipped.append(FileReceipt(file=table.file.name, items=0, ok=0, failed=0, reason=reason))


# ----------------------------------------------------------------------------------------------------------- signature


def _shaped(head: Head, shape: TableShape) -> Head:
    """The head as ``run()`` sees it once the MLTable's transformations are done.

    Raises:
        InputError: they name columns that the table lacks.
    """
    made = [*([shape.path_column] if shape.path_column else []), *shape.partition_columns]
    named = [name for name in (*(shape.keep or ()), *shape.drop) if name not in made]
    lacking = [name for name in dict.fromkeys((*named, *shape.types)) if name not in head.columns]
    if lacking and head.columns:
        message = f"The MLTable's transformations name {', '.join(lacking)}. The table has {', '.join(head.columns)}."
        raise InputError(message)
    types = dict(zip(head.columns, head.types, strict=True))
    types = {name: shape.types.get(name, "string" if shape.only_text else kind) for name, kind in types.items()}
    types.update(dict.fromkeys(made, "string"))
    kept = [name for name in shape.keep or types if name in types and name not in shape.drop]
    return Head(tuple(kept), tuple(types[name] for name in kept), head.texts - shape.types.keys(), head.offset)


def _schema(head: Head, signature: tuple[dict[str, Any], ...] | None, shape: TableShape | None = None) -> TableSchema:
    """The columns of the first file; those of the signature have its types, which are strict.

    So are the types that an MLTable converts columns to. Columns that it leaves out are still read: rows are checked
    whole.
    """
    if shape is not None:
        return _shaped_schema(head, signature, shape)
    demanded = {
        str(column["name"]): _ARROW_TYPES[column["type"]]
        for column in signature or ()
        if column.get("name") is not None and column.get("type") in _ARROW_TYPES
    }
    types = tuple(demanded.get(name, kind) for name, kind in zip(head.columns, head.types, strict=True))
    absent = tuple(name for name in demanded if name not in head.columns)
    strict = tuple(name for name in (*head.columns, *absent) if name in demanded)
    return TableSchema((*head.columns, *absent), (*types, *(demanded[name] for name in absent)), strict)


def _shaped_schema(head: Head, signature: tuple[dict[str, Any], ...] | None, shape: TableShape) -> TableSchema:
    _shaped(head, shape)
    types = [
        shape.types.get(name, "string" if shape.only_text else kind)
        for name, kind in zip(head.columns, head.types, strict=True)
    ]
    plain = _schema(Head(head.columns, tuple(types)), signature)
    strict = (*plain.strict, *(name for name in shape.types if name not in plain.strict))
    return replace(
        plain,
        strict=strict,
        keep=None if shape.keep is None else tuple(shape.keep),
        drop=tuple(shape.drop),
        path_column=shape.path_column,
        partition_pattern=shape.partition_pattern,
        partition_columns=tuple(shape.partition_columns),
    )


def _mismatch(head: Head, signature: tuple[dict[str, Any], ...] | None, *, named: bool) -> str | None:
    """Why a file does not fit the signature: columns that are missing or of another kind. More columns are fine."""
    columns = [
        column for column in signature or () if column.get("name") is not None and column.get("type") != "tensor"
    ]
    if not columns or not named:
        return None
    found = dict(zip(head.columns, head.types, strict=True))
    faults = []
    missing = [c for c in columns if c["name"] not in found and c.get("required", True)]
    if missing:
        faults.append("missing columns " + ", ".join(f"{c['name']} ({c['type']})" for c in missing))
    numbers = {"boolean", "integer", "long", "float", "double"}
    wrong = [c for c in columns if c.get("type") in numbers and c["name"] in head.texts]
    if wrong:
        faults.append("text in columns " + ", ".join(f"{c['name']} (should be {c['type']})" for c in wrong))
    if not faults:
        return None
    return "; ".join(faults) + ". Found: " + ", ".join(f"{name} ({kind})" for name, kind in found.items()) + "."


def _is_image(name: str) -> bool:
    return PurePosixPath(name.lower()).suffix in IMAGES


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.removeprefix(".").lower() or "no ending"


def _unsupported(name: str) -> ErrorInfo:
    return ErrorInfo("UnsupportedFileType", f"File type '{_ending(name)}' is not supported")


def _info(error: BaseException) -> ErrorInfo:
    return ErrorInfo(type(error).__name__, error.message if isinstance(error, BatchpointError) else str(error))
