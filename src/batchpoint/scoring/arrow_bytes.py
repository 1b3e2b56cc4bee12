"""Columns → bytes by Arrow: many times quicker than one value after the other, where there are many rows.

Runs under the deployment's interpreter, and is called where pyarrow is installed there: only the standard library is
imported at the top. Each text is the one that ``cells`` makes of the value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cells import cells_of, float_cell, is_one_text, json_ready_text, json_text, values_of
from .results import kind_of

if TYPE_CHECKING:
    from .cells import Style


def csv_lines(table: dict[str, Any], rows: int) -> bytes | None:
    """Lines of csv by Arrow's own writer, the quickest way; None where a cell needs quotes, or Arrow is too old."""
    import pyarrow as pa  # noqa: PLC0415 - lazily: slow to import, and perhaps not there
    from pyarrow import csv as arrow_csv  # noqa: PLC0415 - the same

    if not hasattr(arrow_csv.WriteOptions, "quoting_style"):  # before pyarrow 11
        return None
    arrays = []
    for column in table.values():
        if is_one_text(column):
            arrays.append(pa.repeat(pa.scalar(column[0], pa.large_string()), rows))
            continue
        array = _simple_arrow_array(column)
        # The writer's own texts of these are ours, and it refuses what needs quotes.
        is_plain = array is not None and (pa.types.is_integer(array.type) or pa.types.is_large_string(array.type))
        arrays.append(array if is_plain else arrow_cells(column, "csv"))
    sink = pa.BufferOutputStream()
    options = arrow_csv.WriteOptions(include_header=False, quoting_style="none", batch_size=rows)
    try:
        arrow_csv.write_csv(pa.table(arrays, names=list(table)), sink, options)
    except pa.ArrowInvalid:  # a quote, a comma or a line end in a text
        return None
    return bytes(memoryview(sink.getvalue()))


def joined_lines(table: dict[str, Any], rows: int, style: Style, prefixes: list[str], suffix: str) -> bytes:
    """Lines of text, joined of the cells of each row with a prefix before each and a suffix behind the last."""
    import pyarrow as pa  # noqa: PLC0415 - lazily: slow to import, and perhaps not there
    import pyarrow.compute as pc  # noqa: PLC0415

    columns = list(table.values())
    same = [is_one_text(column) for column in columns]
    if all(same):
        same[0] = False  # at least one column says how many lines there are
    cells = [
        pa.scalar(cells_of(column[:1], style)[0], pa.large_string()) if once else arrow_cells(column, style)
        for column, once in zip(columns, same)
    ]
    if style == "csv" and len(cells) == 1:
        cells = [pc.if_else(pc.equal(cells[0], ""), '""', cells[0])]
    pieces: list[Any] = []
    for prefix, column in zip(prefixes, cells):
        pieces += [pa.scalar(prefix, pa.large_string()), column]
    pieces.append(pa.scalar(suffix, pa.large_string()))
    lines = pc.binary_join_element_wise(*pieces, pa.scalar("", pa.large_string()))
    offsets = memoryview(lines.buffers()[1]).cast("q")
    first, last = offsets[lines.offset], offsets[lines.offset + rows]
    return bytes(memoryview(lines.buffers()[2])[first:last])


def ipc_stream(table: dict[str, Any]) -> bytes:
    """One Arrow IPC stream. A column that Arrow cannot hold as one type becomes text; dictionaries become JSON."""
    import pyarrow as pa  # noqa: PLC0415

    arrays = {name: _typed_array(column) for name, column in table.items()}
    batch = pa.table(arrays)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_table(batch)
    return bytes(memoryview(sink.getvalue()))


def arrow_cells(column: Any, style: Style) -> Any:
    """Texts of a column as an Arrow array of large strings without nulls."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    array = _simple_arrow_array(column)
    if array is None:
        return pa.array(cells_of(column, style), pa.large_string())
    kind = array.type
    nothing = "" if style == "csv" else "null"
    if pa.types.is_boolean(kind):
        words = ("True", "False") if style == "csv" else ("true", "false")
        cells = pc.if_else(array, *[pa.scalar(word, pa.large_string()) for word in words])
    elif pa.types.is_integer(kind):
        cells = pc.cast(array, pa.large_string())
    elif pa.types.is_floating(kind):
        cells = _arrow_float_cells(array, style)
    elif pa.types.is_timestamp(kind):
        cells = _arrow_time_cells(array, style)
    else:
        cells = _arrow_text_cells(array, style)
    return pc.fill_null(cells, pa.scalar(nothing, pa.large_string()))


def _simple_arrow_array(column: Any) -> Any:
    """The column as an Arrow array of a kind whose texts are made by columns, or None."""
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(column, list):
        kinds = set(map(type, column)) - {type(None)}
        if len(kinds) != 1 or not kinds <= {str, int, float, bool}:
            return None
    elif kind_of(column) is not None and getattr(column.dtype, "kind", "O") == "O" and not _is_text_series(column):
        return _simple_arrow_array(column.tolist())
    try:
        array = _arrow_array(column)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeError):
        return None
    types = pa.types
    if types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if str(array.type) in {"string", "string_view"}:
        array = array.cast(pa.large_string())
    kind = array.type
    plain_time = types.is_timestamp(kind) and kind.tz is None
    simple = types.is_boolean(kind) or types.is_integer(kind) or types.is_large_string(kind) or plain_time
    return array if simple or types.is_float32(kind) or types.is_float64(kind) else None


def _is_text_series(column: Any) -> bool:
    return type(column.dtype).__name__ in {"StringDtype", "CategoricalDtype"}


def _arrow_array(column: Any) -> Any:
    """Any column as one Arrow array; NaN of floats is missing."""
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        array = column
    elif kind_of(column) == ("numpy", "ndarray") and column.dtype.kind not in "fiubMm":
        array = pa.array(column.tolist(), from_pandas=True)
    else:
        array = pa.array(column, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _arrow_float_cells(array: Any, style: Style) -> Any:
    """Python's shortest texts: Arrow's digits are the same, its exponents and whole numbers look otherwise."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    if pa.types.is_float32(array.type):
        array = pc.cast(pc.cast(array, pa.string()), pa.float64())
    array = pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array)
    size = pc.abs(array)
    ordinary = pc.or_(pc.and_(pc.greater_equal(size, 1e-4), pc.less(size, 1e10)), pc.equal(size, 0.0))
    cells = pc.cast(array, pa.large_string())
    has_point = pc.match_substring(cells, ".")
    if pc.all(has_point).as_py() is False:
        whole = pc.binary_join_element_wise(cells, pa.scalar(".0", pa.large_string()), pa.scalar("", pa.large_string()))
        cells = pc.if_else(has_point, cells, whole)
    special = pc.fill_null(pc.invert(ordinary), fill_value=False)
    if pc.any(special).as_py() is False:
        return cells
    texts = [float_cell(value, style) for value in array.filter(special).to_pylist()]
    return pc.replace_with_mask(cells, special, pa.array(texts, pa.large_string()))


def _arrow_time_cells(array: Any, style: Style) -> Any:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    texts = pc.cast(pc.strftime(array, format="%Y-%m-%dT%H:%M:%S"), pa.large_string())
    texts = pc.replace_substring_regex(texts, r"(\.\d*?)0+$", r"\1")
    texts = pc.replace_substring_regex(texts, r"\.$", "")
    return texts if style == "csv" else _arrow_text_cells(texts, style)


def _arrow_text_cells(texts: Any, style: Style) -> Any:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    unsafe = pc.match_substring_regex(texts, '[",\r\n]' if style == "csv" else '["\\\\\\x00-\\x1f]')
    quote, nothing = pa.scalar('"', pa.large_string()), pa.scalar("", pa.large_string())
    if style == "csv":
        if not pc.any(unsafe).as_py():
            return texts
        doubled = pc.binary_join_element_wise(quote, pc.replace_substring(texts, '"', '""'), quote, nothing)
        return pc.if_else(unsafe, doubled, texts)
    quoted = pc.binary_join_element_wise(quote, texts, quote, nothing)
    unsafe = pc.fill_null(unsafe, fill_value=False)
    escaped = [json_text(text) for text in texts.filter(unsafe).to_pylist()]
    return pc.replace_with_mask(quoted, unsafe, pa.array(escaped, pa.large_string()))


def _typed_array(column: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    try:
        array = _arrow_array(column)
    except (pa.ArrowException, OverflowError, TypeError):
        return pa.array([json_ready_text(value) for value in values_of(column)], pa.string())
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if str(array.type) in {"large_string", "string_view"}:
        return array.cast(pa.string())
    if pa.types.is_struct(array.type) or pa.types.is_map(array.type):
        return pa.array([json_ready_text(value) for value in values_of(column)], pa.string())
    return array
