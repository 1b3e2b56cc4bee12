"""Files or row slices → MiniBatch, lazily, in a stable order that depends on the input and the settings alone."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from batchpoint.entities.jobs import FileReceipt
from batchpoint.errors import BatchpointError, InputError
from batchpoint.scoring import mltable, tabular
from batchpoint.scoring.slices import SAMPLE_ROWS, UnreadableRowsError
from batchpoint.scoring.spec import ScoringSpec, SplitSpec
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


IMAGES = frozenset({".png", ".jpg", ".jpeg", ".tiff", ".bmp", ".gif"})

SMALLEST_SLICE = 1 << 20
LARGEST_SLICE = 1 << 21
SLICES = 32
"""A mini-batch has about a 32nd of the input's bytes, but no less than 1 MiB, which is worth the 7 ms that one call of
a scikit-learn pipeline costs, and no more than 2 MiB: with more, the arrays leave the processor's caches (8 MiB
cost a seventh more). It also bounds memory, and what a lost worker repeats."""

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
        result.mini_batches = _of_files(result, fetched, spec)
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
    tables = any(tabular.format_of(file.name) for file in files)
    if spec.script.kind == "script" and spec.script.takes == "paths":
        return "files"
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
    if all(stores.local_path(file.url) is not None for file in files):
        for file in files:
            yield InputFile(file.name, str(Path(file.url).absolute()), file.size)
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
            result.schema = _schema(table.head, signature)
            break
    if result.schema is None:
        _refuse(first, spec)
    later = _chained(first, tables)
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
    report = _mismatch(head, signature, named=kind != "csv" or spec.csv.header or bool(spec.csv.column_names))
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
        """Small files are packed together as long as their columns are the same; asked for N files, N are taken."""
        if split.by == "files":
            return self.files < split.files or self.slices[-1].file == piece.file
        if columns != self.columns:
            return False
        if split.by == "rows" and split.rows:
            return self.rows + piece.rows <= split.rows
        return self.size + piece.length <= size


def _of_rows(result: Plan, tables: Iterator[_Table | _Unreadable], spec: ScoringSpec) -> Iterator[MiniBatch]:
    size = spec.split.bytes or slice_bytes(result.total_bytes)
    index = 0
    filling = _Open()
    for table in tables:
        result.planned_bytes += table.file.size
        columns = None if isinstance(table, _Unreadable) else (table.kind, table.head.columns)
        for piece in _pieces(result, table, spec, size):
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


def _schema(head: Head, signature: tuple[dict[str, Any], ...] | None) -> TableSchema:
    """The columns of the first file; those of the signature have its types, which are strict."""
    demanded = {
        str(column["name"]): _ARROW_TYPES[column["type"]]
        for column in signature or ()
        if column.get("name") is not None and column.get("type") in _ARROW_TYPES
    }
    types = tuple(demanded.get(name, kind) for name, kind in zip(head.columns, head.types, strict=True))
    absent = tuple(name for name in demanded if name not in head.columns)
    strict = tuple(name for name in (*head.columns, *absent) if name in demanded)
    return TableSchema((*head.columns, *absent), (*types, *(demanded[name] for name in absent)), strict)


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
