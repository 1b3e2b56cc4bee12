"""Slices → rows: what a worker reads of tabular files.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top. pandas is
needed to read rows; pyarrow is used when it is there, because it reads csv several times faster.
"""

from __future__ import annotations

import array
import csv as csv_module
import importlib.util
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _beside(name: str) -> Any:
    """The module of that file beside this one, by its path: a worker's interpreter knows nothing of batchpoint."""
    full = f"batchpoint_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full]


if TYPE_CHECKING or __name__ == "batchpoint.scoring.slices":
    from batchpoint.scoring import csv_records, read_ahead
else:
    csv_records, read_ahead = _beside("csv_records"), _beside("read_ahead")


def read_rows(
    slices: Sequence[Mapping[str, Any]],
    start: int,
    stop: int,
    csv: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
) -> Any:
    """The rows ``start`` to ``stop`` of a mini-batch as a ``pandas.DataFrame`` with a fresh index.

    Args:
        slices: the mini-batch's slices as the driver sends them: name, path, format, offset, length, first_row, rows,
            and numbers where rows were gathered.
        start: first row, counted over all slices.
        stop: one past the last row.
        csv: the fields of ``CsvOptions``. ``encoding`` was dealt with when the file was planned.
        schema: ``columns`` and ``types`` (Arrow names) pinned by planning; ``strict`` names the columns whose types the
            model's signature demands. A column that is not in it is typed by the head of its file. ``keep``, ``drop``,
            ``path_column``, ``partition_pattern`` and ``partition_columns`` are what an MLTable makes of the columns.

    Only the wanted rows are parsed, so a bad row fails the ranges that hold it and no other.

    Raises:
        csv_records.UnreadableRowsError: a row is ragged, not UTF-8, not JSON, or a value does not fit the signature.
    """
    return _rows(slices, start, stop, csv, schema, None)


def _rows(
    slices: Sequence[Mapping[str, Any]],
    start: int,
    stop: int,
    csv: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
    names: Sequence[str] | None,
) -> Any:
    """See ``read_rows``; of csv only the columns ``names``, unless it is None."""
    import pandas as pd  # noqa: PLC0415 -- the user's own; loaded by the first read

    frames = []
    for group in _alike(_wanted(slices, start, stop), csv):
        if group[0][0]["format"] == "csv":
            try:
                frames.append(_read_csv(group, csv, schema, names))
            except csv_records.UnreadableRowsError as error:
                if error.item is not None:
                    error.item += start + sum(map(len, frames))
                raise
        else:
            frames.extend(_read_other(piece, first, last, schema) for piece, first, last in group)
    frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return _with_known_columns(_shaped(frame, _wanted(slices, start, stop), schema) if schema else frame)


def _with_known_columns(frame: Any) -> Any:
    """The frame with the column index of those before it, which pandas has learnt to search.

    With a mini-batch for each key that is a tenth of a script's time. Older versions of pandas have indexes that a
    script can write into: there each frame keeps its own.
    """
    index = frame.columns
    if type(index.dtype).__name__ == "StringDtype":
        names = tuple(index)
        if names not in _Memory.columns:
            if len(_Memory.columns) >= MOST_COLUMNS:
                _Memory.columns.clear()
            _Memory.columns[names] = index.view()  # a view has a name of its own, and shares what is learnt
        frame.columns = _Memory.columns[names].view()
    return frame


def read_texts(
    slices: Sequence[Mapping[str, Any]],
    start: int,
    stop: int,
    csv: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
    names: Sequence[str],
) -> Any:
    """Some columns of csv slices as the texts that stand in the files: ``007`` and twenty digits stay what they are.

    Arguments and errors are those of ``read_rows``.
    """
    known = dict(zip(schema["columns"], schema["types"])) if schema else {}
    types = {**known, **dict.fromkeys(names, "string")}
    strict = [name for name in (schema or {}).get("strict") or () if name not in names]
    as_text = {**(schema or {}), "columns": list(types), "types": list(types.values()), "strict": strict}
    return _rows(slices, start, stop, csv, as_text, names)[list(names)]


def read_rows_and_texts(
    slices: Sequence[Mapping[str, Any]],
    start: int,
    stop: int,
    csv: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
    names: Sequence[str] | None,
) -> tuple[Any, Any]:
    """The rows of csv slices, and of some columns, or all, the texts, as ``read_rows`` and ``read_texts`` give them.

    Arguments and errors are theirs. Large slices of plain values are parsed once for both. The texts are None where
    two columns have one name; names that are no columns are left out.
    """
    found = _parsed_once(slices, start, stop, csv, schema, names)
    if found is not None:
        return found
    frame = read_rows(slices, start, stop, csv, schema)
    if not frame.columns.is_unique:
        return frame, None
    known = list(frame.columns) if names is None else [name for name in names if name in frame.columns]
    return frame, read_texts(slices, start, stop, csv, schema, known) if known else frame[known]


def line_bounds(data: bytes) -> list[tuple[int, int]]:
    """Start and end of each line of ``data`` (jsonl) that is not blank."""
    return list(_lines(data))


def row_numbers(piece: Mapping[str, Any], first: int, last: int) -> Sequence[int]:
    """The numbers that rows of a slice have in their file as the user knows it, counted from 0.

    Those of a slice with ``numbers`` stand in that file, because its rows were gathered from several places.
    """
    begin, count = piece["first_row"] + first, last - first
    if not piece.get("numbers"):
        return range(begin, begin + count)
    found = array.array("q")
    found.frombytes(_bytes_at(piece["numbers"], begin * found.itemsize, count * found.itemsize))
    return found


def row_number(piece: Mapping[str, Any], position: int) -> int:
    """The number of one row of a slice."""
    return row_numbers(piece, position, position + 1)[0]


def parquet_rows(path: str, first: int, last: int) -> Any:
    """Rows of a parquet file as an Arrow table. Raises what pyarrow raises."""
    import pyarrow as pa  # noqa: PLC0415 -- the user's own, known to be there
    from pyarrow import parquet  # noqa: PLC0415 -- the same

    if _Memory.parquet_path != path:
        _Memory.parquet_path, _Memory.parquet, _Memory.group_key = path, parquet.ParquetFile(path), None
    tables = []
    passed = 0
    for group in range(_Memory.parquet.metadata.num_row_groups):
        rows = _Memory.parquet.metadata.row_group(group).num_rows
        if passed < last and passed + rows > first:
            if _Memory.group_key != (path, group):
                try:
                    _Memory.group = _Memory.parquet.read_row_group(group, use_threads=False)
                except OSError:
                    _Memory.parquet_path = None  # as with the files that stay open
                    raise
                _Memory.group_key = (path, group)
            begin = max(first - passed, 0)
            tables.append(_Memory.group.slice(begin, min(last - passed, rows) - begin))
        passed += rows
    return pa.concat_tables(tables)


def read_json_array(path: str) -> list[Any]:
    """The rows of a json file: an array of objects, an object with ``columns`` and ``data``, or either of them under
    ``dataframe_records`` or ``dataframe_split``, as MLflow's scoring server takes them.

    Raises:
        csv_records.UnreadableRowsError: the file is not json, or is neither of these.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise csv_records.UnreadableRowsError(f"{Path(path).name} is not valid JSON: {error}.") from None
    if isinstance(value, dict) and len(value) == 1:
        value = next((value[name] for name in ("dataframe_records", "dataframe_split") if name in value), value)
    if isinstance(value, dict) and isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        if any(not isinstance(row, list) or len(row) != len(value["columns"]) for row in value["data"]):
            raise csv_records.UnreadableRowsError(f"{Path(path).name} has rows of more or fewer values than columns.")
        return [dict(zip(value["columns"], row)) for row in value["data"]]
    if not isinstance(value, list):
        message = f"{Path(path).name} holds a JSON {type(value).__name__}; an array of objects is needed."
        raise csv_records.UnreadableRowsError(message)
    return value


# ---------------------------------------------------------------------------------------------- which rows are wanted

if TYPE_CHECKING:
    Piece = tuple[Mapping[str, Any], int, int]
    """A slice, and the rows of it that are wanted."""


def _wanted(slices: Sequence[Mapping[str, Any]], start: int, stop: int) -> Iterator[Piece]:
    passed = 0
    for piece in slices:
        first, last = max(start - passed, 0), min(stop - passed, piece["rows"])
        if first < last:
            yield piece, first, last
        passed += piece["rows"]


def _alike(pieces: Iterator[Piece], csv: Mapping[str, Any]) -> Iterator[list[Piece]]:
    """Neighbours that can be parsed in one go: csv files with the same columns."""
    group: list[Piece] = []
    group_key: object = None
    for piece in pieces:
        is_csv = piece[0]["format"] == "csv"
        key = (
            (_header(piece[0], csv), csv_records.delimiter_of(piece[0]["name"], csv)) if is_csv else piece[0]["format"]
        )
        if group and key != group_key:
            yield group
            group = []
        group.append(piece)
        group_key = key
    if group:
        yield group


MOST_COLUMNS = 64
"""Column indexes that are remembered."""
_CAST_ALIKE = frozenset(("string", "int64", "double"))
OPEN_FILES = 4
"""Files that stay open between reads: the input, and the numbers of gathered rows."""


class _Memory:
    """What was read last. Halving a failing part reads the same slice again and again."""

    headers: dict[object, tuple[str, ...]] = {}  # noqa: RUF012 -- one per process, on purpose
    slice_key: tuple[str, int, int] | None = None
    data: bytes = b""
    bounds: list[tuple[int, int]] | None = None
    group_key: tuple[str, int] | None = None
    group: Any = None
    json_path: str | None = None
    json_rows: list[Any] = []  # noqa: RUF012 -- one per process, on purpose
    parquet_path: str | None = None
    parquet: Any = None
    ahead = read_ahead.ReadAhead()
    columns: dict[object, Any] = {}  # noqa: RUF012 -- one per process, on purpose
    files: dict[str, Any] = {}  # noqa: RUF012 -- one per process, on purpose


def _header(piece: Mapping[str, Any], csv: Mapping[str, Any]) -> tuple[str, ...]:
    delimiter = csv_records.delimiter_of(piece["name"], csv)
    key = (piece["path"], delimiter, csv.get("header", True), tuple(csv.get("column_names") or ()))
    if key not in _Memory.headers:
        if len(_Memory.headers) > 4096:
            _Memory.headers.clear()
        _Memory.headers[key] = csv_records.header_of(piece["path"], delimiter, csv)[0]
    return _Memory.headers[key]


def _bytes_of(piece: Mapping[str, Any]) -> bytes:
    key = (piece["path"], piece["offset"], piece["length"])
    if _Memory.slice_key != key:
        data = _bytes_at(piece["path"], piece["offset"], piece["length"])
        if len(data) != piece["length"]:
            raise csv_records.UnreadableRowsError(f"{piece['name']} has become shorter since it was planned.")
        _Memory.slice_key, _Memory.data, _Memory.bounds = key, data, None
    return _Memory.data


def _bytes_at(path: str, offset: int, length: int) -> bytes:
    """Bytes of a file, which stays open for the next ones: a mini-batch of a model map has slices by the hundred."""
    file = _Memory.files.get(path)
    if file is None:
        if len(_Memory.files) >= OPEN_FILES:
            for old in _Memory.files.values():
                old.close()
            _Memory.files.clear()
        file = _Memory.files[path] = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123 -- stays open; a string
    try:
        file.seek(offset)
        data = file.read(length)
        while len(data) < length:
            more = file.read(length - len(data))
            if not more:
                break
            data += more
    except OSError:
        _Memory.files.pop(path).close()  # opened anew by the next try: a file system that was away knows it no more
        raise
    return data


def _cut(piece: Mapping[str, Any], first: int, last: int, delimiter: str | None) -> bytes:
    """The bytes of the wanted rows, ending in a line ending. A delimiter of None means lines of JSON."""
    data = _bytes_of(piece)
    if first > 0 or last < piece["rows"]:
        if _Memory.bounds is None:
            _Memory.bounds = line_bounds(data) if delimiter is None else csv_records.record_bounds(data, delimiter)
        data = data[_Memory.bounds[first][0] : _Memory.bounds[last - 1][1]]
    return data if data.endswith((b"\n", b"\r")) else data + b"\n"


# ------------------------------------------------------------------------------------------------------------- records


def _lines(data: bytes) -> Iterator[tuple[int, int]]:
    begin = 0
    for match in re.finditer(rb"\n|\Z", data):
        if data[begin : match.end()].strip():
            yield begin, match.end()
        begin = match.end()


# ------------------------------------------------------------------------------------------------- what an MLTable says


def _shaped(frame: Any, pieces: Iterator[Piece], schema: Mapping[str, Any]) -> Any:
    """The frame with the columns that an MLTable makes of file names, and without those that it leaves out."""
    path_column, pattern = schema.get("path_column"), schema.get("partition_pattern")
    if path_column or pattern:
        names = [piece["name"] for piece, first, last in pieces for _ in range(first, last)]
        made = {path_column: names} if path_column else {}
        if pattern:
            found = {name: re.fullmatch(pattern, name) for name in dict.fromkeys(names)}
            for at, column in enumerate(schema["partition_columns"], 1):
                matches = [found[name] for name in names]
                made[column] = [match[at] if match else None for match in matches]
        frame = frame.assign(**made)
    keep, drop = schema.get("keep"), schema.get("drop") or ()
    if keep is None and not drop:
        return frame
    columns = [name for name in (frame.columns if keep is None else keep) if name not in drop]
    missing = [name for name in columns if name not in frame]
    if missing:
        raise csv_records.UnreadableRowsError(
            f"The columns {', '.join(missing)}, which the MLTable keeps, are missing."
        )
    return frame[columns]


# ----------------------------------------------------------------------------------------------------------------- csv


def _read_csv(
    group: list[Piece], csv: Mapping[str, Any], schema: Mapping[str, Any] | None, names: Sequence[str] | None
) -> Any:
    first = group[0][0]
    columns, delimiter = _header(first, csv), csv_records.delimiter_of(first["name"], csv)
    types, strict = _types(first, columns, delimiter, csv, schema)
    nulls = list(csv.get("null_values", [""]))
    ahead = _read_ahead(group, columns, types, delimiter, nulls, names)
    if ahead is not None:
        return ahead
    data = b"".join(_cut(*piece, delimiter) for piece in group)
    rows = sum(last - begin for _, begin, last in group)
    if data.count(b'"') % 2:  # perhaps a quote that is never closed, which readers let swallow the rows after it
        _explain(group, columns, delimiter)
    try:
        frame = _parse(data, columns, types, strict, delimiter, nulls, names)
    except _BadValueError as error:
        name, row = _place(group, error.row)
        message = f"{name}, row {row}: column {error.column!r} holds {error.value!r}, which is not {error.type}."
        raise csv_records.UnreadableRowsError(message, item=error.row) from None
    except ValueError as error:  # ArrowInvalid and pandas' ParserError are both ValueErrors
        _explain(group, columns, delimiter)
        message = f"{first['name']}, from row {row_number(first, group[0][1])}: {error}"
        raise csv_records.UnreadableRowsError(message) from None
    if len(frame) != rows:
        _explain(group, columns, delimiter)
        message = f"{first['name']}: {rows} rows were planned and {len(frame)} read. Did the file change?"
        raise csv_records.UnreadableRowsError(message)
    return frame


def _parsed_once(
    slices: Sequence[Mapping[str, Any]],
    start: int,
    stop: int,
    csv: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
    names: Sequence[str] | None,
) -> tuple[Any, Any] | None:
    """Frame and texts; None where anything speaks against making one of the other."""
    groups = list(_alike(_wanted(slices, start, stop), csv))
    if len(groups) != 1 or _is_read_ahead(groups[0]):
        return None
    try:
        import pyarrow as pa  # noqa: PLC0415 -- the user's own, and may be absent
    except ImportError:
        return None
    group = groups[0]
    columns, delimiter = _header(group[0][0], csv), csv_records.delimiter_of(group[0][0]["name"], csv)
    kept = list(columns) if names is None else [name for name in names if name in columns]
    types, _ = _types(group[0][0], columns, delimiter, csv, schema)
    # Casts of these give what the parser gives, or fail; those of other types read texts in ways of their own.
    if not kept or len(set(columns)) < len(columns) or not {types[name] for name in kept} <= _CAST_ALIKE:
        return None
    data = b"".join(_cut(*piece, delimiter) for piece in group)
    arrow_types = {name: pa.string() if name in kept else _arrow_type(kind) for name, kind in types.items()}
    try:
        texts = _arrow_table(data, columns, arrow_types, delimiter, list(csv.get("null_values", [""])))
        table = texts.cast(pa.schema([(name, _arrow_type(types[name])) for name in columns]))
    except ValueError:  # ArrowInvalid is one; the long way explains, or widens
        return None
    if table.num_rows != sum(last - first for _, first, last in group) or data.count(b'"') % 2:
        return None
    frame = _with_known_columns(table.to_pandas(use_threads=False))
    return frame, _with_known_columns(texts.select(kept).to_pandas(use_threads=False))


def _is_read_ahead(group: list[Piece]) -> bool:
    """Whether these are small, whole slices, which may lie close to those read before."""
    return len(group) <= read_ahead.MOST // 2 and all(
        last - first == piece["rows"] and piece["length"] <= read_ahead.NEAR for piece, first, last in group
    )


def _read_ahead(
    group: list[Piece],
    columns: tuple[str, ...],
    types: Mapping[str, str],
    delimiter: str,
    nulls: list[str],
    names: Sequence[str] | None,
) -> Any:
    """The rows of small, whole slices that lie close to those read before; None where they are to be parsed alone."""
    if not _is_read_ahead(group):
        return None
    try:
        import pyarrow as pa  # noqa: F401, PLC0415 -- the user's own, and may be absent
    except ImportError:
        return None
    way = (columns, tuple(types.values()), delimiter, tuple(nulls), tuple(names or ()))

    def parse(data: bytes) -> Any:
        arrow_types = {name: _arrow_type(kind) for name, kind in types.items()}
        return _arrow_table(data, columns, arrow_types, delimiter, nulls, names)

    return _Memory.ahead.frame([piece for piece, _, _ in group], way, parse)


def _types(
    piece: Mapping[str, Any],
    columns: tuple[str, ...],
    delimiter: str,
    csv: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
) -> tuple[dict[str, str], frozenset[str]]:
    pinned = dict(zip(schema["columns"], schema["types"])) if schema else {}
    if any(name not in pinned for name in columns):
        offset = csv_records.header_of(piece["path"], delimiter, csv)[1]
        with Path(piece["path"]).open("rb") as file:
            file.seek(offset)
            head = file.read(csv_records.HEAD_BYTES)
            is_whole = not file.read(1)
        guessed, _ = csv_records.sample_types(head, columns, delimiter, csv.get("null_values", [""]), is_whole=is_whole)
        pinned = {**dict(zip(columns, guessed)), **pinned}
    strict = frozenset((schema or {}).get("strict") or ())
    return {name: pinned[name] for name in columns}, strict


class _BadValueError(Exception):
    """A value does not fit the type that the signature demands."""

    def __init__(self, row: int, column: str, value: str, kind: str) -> None:
        super().__init__(row, column, value, kind)
        self.row, self.column, self.value, self.type = row, column, value, kind


def _parse(
    data: bytes,
    columns: Sequence[str],
    types: Mapping[str, str],
    strict: frozenset[str],
    delimiter: str,
    nulls: list[str],
    names: Sequence[str] | None,
) -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415 -- the user's own, and may be absent
    except ImportError:
        return _parse_with_pandas(data, columns, types, strict, delimiter, nulls)
    arrow_types = {name: _arrow_type(kind) for name, kind in types.items()}
    try:
        # Most files have no odd spellings of "missing" in their numbers: one pass with the policy for text will do.
        table = _arrow_table(data, columns, arrow_types, delimiter, nulls, names)
    except pa.ArrowInvalid:
        texts = _arrow_table(data, columns, dict.fromkeys(columns, pa.string()), delimiter, nulls)
        converted = [
            _converted(texts.column(i), arrow_types[name], name, strict=name in strict)
            for i, name in enumerate(columns)
        ]
        table = pa.table(converted, names=list(columns))
    return table.to_pandas(use_threads=False)


def _arrow_type(name: str) -> Any:
    """The type of that name; text for types that csv cannot hold (nested ones of a parquet file beside it)."""
    import pyarrow as pa  # noqa: PLC0415 -- the user's own, known to be there

    try:
        return pa.type_for_alias(name)
    except ValueError:
        return pa.string()


def _arrow_table(
    data: bytes,
    columns: Sequence[str],
    types: Mapping[str, Any],
    delimiter: str,
    nulls: list[str],
    names: Sequence[str] | None = None,
) -> Any:
    from pyarrow import csv as arrow_csv  # noqa: PLC0415 -- the user's own, known to be there

    return arrow_csv.read_csv(
        io.BytesIO(data),
        read_options=arrow_csv.ReadOptions(
            column_names=list(columns), use_threads=False, block_size=min(max(len(data) + 1, 1 << 12), 2**31 - 1)
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in data),
        convert_options=arrow_csv.ConvertOptions(
            column_types=types,
            include_columns=list(names or ()),
            null_values=nulls,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=csv_records.TRUE,
            false_values=csv_records.FALSE,
        ),
    )


def _converted(texts: Any, kind: Any, name: str, *, strict: bool) -> Any:
    """A column of texts as numbers; texts that do not convert widen the column, or fail it when it is strict."""
    import pyarrow as pa  # noqa: PLC0415 -- the user's own, known to be there
    from pyarrow import compute  # noqa: PLC0415 -- the same

    if pa.types.is_string(kind):
        return texts
    if pa.types.is_binary(kind):
        return texts.cast(kind)
    trimmed = compute.utf8_trim_whitespace(texts)
    missing = compute.is_in(trimmed, value_set=pa.array(csv_records.NUMBER_NULLS))
    present = compute.if_else(missing, pa.scalar(None, pa.string()), trimmed)
    for candidate in [kind] if strict or not pa.types.is_integer(kind) else [kind, pa.float64()]:
        try:
            return present.cast(candidate)
        except pa.ArrowInvalid:
            continue
    if not strict:
        return texts
    row = _first_failing(present, kind)
    raise _BadValueError(row, name, str(present[row]), str(kind))


def _first_failing(texts: Any, kind: Any) -> int:
    """Position of the first text that does not convert, known to be there; found by halving."""
    import pyarrow as pa  # noqa: PLC0415 -- the user's own, known to be there

    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            texts.slice(low, middle - low).cast(kind)
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low


_PANDAS_TYPES = {"int64": "int64", "int32": "int32", "double": "float64", "float": "float32", "bool": "bool"}


def _parse_with_pandas(
    data: bytes,
    columns: Sequence[str],
    types: Mapping[str, str],
    strict: frozenset[str],
    delimiter: str,
    nulls: list[str],
) -> Any:
    """The same without pyarrow. pandas cannot tell a quoted empty text from an unquoted one: both are missing."""
    import pandas as pd  # noqa: PLC0415 -- the user's own; loaded by the first read

    frame = pd.read_csv(
        io.BytesIO(data), header=None, names=list(columns), index_col=False, sep=delimiter, dtype=str,
        keep_default_na=False, na_values=nulls, encoding="utf-8", on_bad_lines="error",
    )  # fmt: skip
    bounds = csv_records.record_bounds(data, delimiter)
    if any(len(csv_records.fields_of(data[a:b], delimiter)) != len(columns) for a, b in bounds):
        raise ValueError("rows have different numbers of fields")
    for name in columns:
        if types[name] == "string":
            continue
        texts = frame[name].str.strip()
        present = texts.mask(texts.isin(csv_records.NUMBER_NULLS))
        try:
            frame[name] = _pandas_column(present, types[name])
        except (ValueError, KeyError):
            if name in strict:
                row, value = _first_bad(present, types[name])
                raise _BadValueError(row, name, value, types[name]) from None
    return frame


def _pandas_column(present: Any, kind: str) -> Any:
    import pandas as pd  # noqa: PLC0415 -- the user's own; loaded by the first read

    if kind == "bool":
        known = {**dict.fromkeys(csv_records.TRUE, True), **dict.fromkeys(csv_records.FALSE, False)}
        if not present.dropna().isin(known).all():
            raise ValueError(kind)
        mapped = present.map(known)
        return mapped.astype(bool) if not mapped.isna().any() else mapped.astype(object)
    if kind.startswith("timestamp"):
        return pd.to_datetime(present)
    numbers = pd.to_numeric(present)
    if numbers.dtype.kind == "f":
        numbers = present.astype("float64")  # before pandas 3 the last digits of the others are off
    whole = kind in {"int64", "int32"}
    if whole and present.dropna().str.contains(r"[.eE]").any():
        return numbers.astype("float64")
    return numbers.astype("float64" if whole and numbers.isna().any() else _PANDAS_TYPES[kind])


def _first_bad(present: Any, kind: str) -> tuple[int, str]:
    for row in range(len(present)):
        try:
            _pandas_column(present.iloc[row : row + 1], kind)
        except (ValueError, KeyError):
            return row, str(present.iloc[row])
    return 0, ""


def _place(group: list[Piece], row: int) -> tuple[str, int]:
    """File and row, counted from 0, of a row of what was parsed."""
    for piece, first, last in group:
        if row < last - first:
            return piece["name"], row_number(piece, first + row)
        row -= last - first
    return group[-1][0]["name"], row_number(group[-1][0], group[-1][2] - 1)


def _explain(group: list[Piece], columns: Sequence[str], delimiter: str) -> None:
    """Raise for the first row that is ragged, not UTF-8, or has a quote that never ends."""
    for piece, first, last in group:
        data = _cut(piece, first, last, delimiter)
        numbers = row_numbers(piece, first, last)
        for row, (begin, end) in zip(numbers, csv_records.record_bounds(data, delimiter)):
            try:
                fields = csv_records.fields_of(data[begin:end], delimiter)
            except UnicodeDecodeError as error:
                message = f"{piece['name']}, row {row}: not UTF-8 ({error.reason}). Set csv.encoding."
                raise csv_records.UnreadableRowsError(message) from None
            except csv_module.Error as error:
                raise csv_records.UnreadableRowsError(f"{piece['name']}, row {row}: {error}.") from None
            if data[begin:end].count(b'"') % 2 and _is_open(data[begin:end], delimiter):
                message = f"{piece['name']}, row {row}: a quote is never closed."
                raise csv_records.UnreadableRowsError(message)
            if len(fields) != len(columns):
                message = f"{piece['name']}, row {row}: expected {len(columns)} fields, found {len(fields)}."
                raise csv_records.UnreadableRowsError(message)


def _is_open(record: bytes, delimiter: str) -> bool:
    """Whether a record's last field is a quoted one without its closing quote."""
    try:
        next(csv_module.reader(io.StringIO(record.decode(), newline=""), delimiter=delimiter, strict=True), None)
    except csv_module.Error as error:
        return "unexpected end of data" in str(error)
    return False


# ------------------------------------------------------------------------------------------------------- other formats


def _read_other(piece: Mapping[str, Any], first: int, last: int, schema: Mapping[str, Any] | None) -> Any:
    if piece["format"] == "parquet":
        return _read_parquet(piece, piece["first_row"] + first, piece["first_row"] + last)
    if piece["format"] == "json":
        if _Memory.json_path != piece["path"]:
            _Memory.json_path, _Memory.json_rows = piece["path"], read_json_array(piece["path"])
        rows = [_own(row) for row in _Memory.json_rows[piece["first_row"] + first : piece["first_row"] + last]]
    else:
        rows = _json_lines(piece, first, last)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            place = f"{piece['name']}, row {row_number(piece, first + number)}"
            message = f"{place}: expected an object, found {row!r}."
            raise csv_records.UnreadableRowsError(message)
    return _json_frame(rows, schema)


def _own(value: Any) -> Any:
    """A JSON value whose parts a script may change: the file's rows are kept for the next ones."""
    if isinstance(value, dict):
        return {key: _own(inner) for key, inner in value.items()}
    return [_own(inner) for inner in value] if isinstance(value, list) else value


def _json_lines(piece: Mapping[str, Any], first: int, last: int) -> list[Any]:
    data = _cut(piece, first, last, None)
    lines = [data[begin:end] for begin, end in _lines(data)]
    try:
        rows: list[Any] = json.loads(b"[" + b",".join(lines) + b"]")
    except ValueError:
        rows = []
    if len(rows) == len(lines):
        return rows
    for number, line in zip(row_numbers(piece, first, last), lines):
        try:
            json.loads(line)
        except ValueError as error:
            raise csv_records.UnreadableRowsError(f"{piece['name']}, row {number}: not valid JSON: {error}.") from None
    return [json.loads(line) for line in lines]


def _json_frame(rows: list[Any], schema: Mapping[str, Any] | None) -> Any:
    """Numbers take the pinned type where that loses nothing, so that every slice has the same types."""
    import pandas as pd  # noqa: PLC0415 -- the user's own; loaded by the first read

    frame = pd.DataFrame(rows)
    for name, kind in zip(schema["columns"], schema["types"]) if schema else ():
        if name in frame and kind in _PANDAS_TYPES and frame[name].dtype.kind in "iuf":
            whole = kind.startswith("int")
            if kind in {"double", "float"} or (whole and frame[name].dtype.kind in "iu"):
                frame[name] = frame[name].astype(_PANDAS_TYPES[kind])
    return frame


def _read_parquet(piece: Mapping[str, Any], first: int, last: int) -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415 -- the user's own, and may be absent
    except ImportError:
        message = "Reading parquet needs pyarrow in the deployment's environment. Add it to its packages."
        raise csv_records.UnreadableRowsError(message) from None
    try:
        table = parquet_rows(piece["path"], first, last)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # the file is gone, or its disk fails: it is not its content that is at fault
        raise csv_records.UnreadableRowsError(f"{piece['name']}, rows {first} to {last}: {error}") from None
    return table.to_pandas(use_threads=False, ignore_metadata=True)
