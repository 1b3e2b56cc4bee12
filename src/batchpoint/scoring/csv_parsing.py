"""Bytes of csv → DataFrame. Nothing is read or remembered here.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top. pyarrow is
used when it is there, because it parses csv several times faster than pandas.
"""

from __future__ import annotations

import io
from typing import Any, Mapping, NamedTuple, Sequence

from . import csv_records

PANDAS_TYPES = {"int64": "int64", "int32": "int32", "double": "float64", "float": "float32", "bool": "bool"}
"""Arrow's names of types, and those of pandas."""
_CAST_ALIKE = frozenset(("string", "int64", "double"))


class Layout(NamedTuple):
    """What records of csv hold, and how they are written."""

    columns: tuple[str, ...]
    types: Mapping[str, str]
    """Arrow's name for the type of each column."""
    strict: frozenset[str]
    """Columns whose type the model's signature demands; the others are widened by what does not fit."""
    delimiter: str
    nulls: list[str]
    """Texts that are missing values in columns of text."""


class BadValueError(Exception):
    """A value does not fit the type that the signature demands."""

    def __init__(self, row: int, column: str, value: str, kind: str) -> None:
        super().__init__(row, column, value, kind)
        self.row, self.column, self.value, self.type = row, column, value, kind


def parse(data: bytes, layout: Layout, names: Sequence[str] | None) -> Any:
    """The records as a DataFrame; of them, with pyarrow, only the columns ``names``, unless it is None.

    Raises:
        BadValueError: a value does not fit a strict column.
        ValueError: these are no such records; pyarrow's and pandas' errors of parsing are ValueErrors.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 -- the user's own, and may be absent
    except ImportError:
        return _parse_with_pandas(data, layout)
    try:
        # Most files have no odd spellings of "missing" in their numbers: one pass with the policy for text will do.
        table = arrow_table(data, layout, names)
    except pa.ArrowInvalid:
        texts = arrow_table(data, layout, None, layout.columns)
        converted = [
            _converted(texts.column(at), _arrow_type(layout.types[name]), name, strict=name in layout.strict)
            for at, name in enumerate(layout.columns)
        ]
        table = pa.table(converted, names=list(layout.columns))
    return table.to_pandas(use_threads=False)


def can_be_cast(layout: Layout, kept: Sequence[str]) -> bool:
    """Whether the texts of the columns ``kept``, once parsed, give their values too.

    Casts of these types give what the parser gives, or fail; those of others read texts in ways of their own.
    """
    is_clear = len(set(layout.columns)) == len(layout.columns)
    return bool(kept) and is_clear and {layout.types[name] for name in kept} <= _CAST_ALIKE


def parse_with_texts(data: bytes, layout: Layout, kept: list[str]) -> tuple[Any, Any]:
    """The records, and the texts of the columns ``kept``, of which ``can_be_cast`` is true, as two Arrow tables.

    Raises what pyarrow raises, also for records that ``parse`` can make something of.
    """
    import pyarrow as pa  # noqa: PLC0415 -- the user's own, known to be there

    texts = arrow_table(data, layout, None, kept)
    table = texts.cast(pa.schema([(name, _arrow_type(layout.types[name])) for name in layout.columns]))
    return table, texts.select(kept)


def arrow_table(data: bytes, layout: Layout, names: Sequence[str] | None = None, as_text: Sequence[str] = ()) -> Any:
    """The records as an Arrow table of typed columns, those of ``as_text`` as texts. Raises what pyarrow raises."""
    import pyarrow as pa  # noqa: PLC0415 -- the user's own, known to be there
    from pyarrow import csv as arrow_csv  # noqa: PLC0415 -- the same

    types = {name: _arrow_type(kind) for name, kind in layout.types.items()}
    types.update(dict.fromkeys(as_text, pa.string()))
    return arrow_csv.read_csv(
        io.BytesIO(data),
        read_options=arrow_csv.ReadOptions(
            column_names=list(layout.columns), use_threads=False, block_size=min(max(len(data) + 1, 1 << 12), 2**31 - 1)
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=b'"' in data),
        convert_options=arrow_csv.ConvertOptions(
            column_types=types,
            include_columns=list(names or ()),
            null_values=layout.nulls,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=csv_records.TRUE,
            false_values=csv_records.FALSE,
        ),
    )


def _arrow_type(name: str) -> Any:
    """The type of that name; text for types that csv cannot hold (nested ones of a parquet file beside it)."""
    import pyarrow as pa  # noqa: PLC0415 -- the user's own, known to be there

    try:
        return pa.type_for_alias(name)
    except ValueError:
        return pa.string()


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
    raise BadValueError(row, name, str(present[row]), str(kind))


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


def _parse_with_pandas(data: bytes, layout: Layout) -> Any:
    """The same without pyarrow. pandas cannot tell a quoted empty text from an unquoted one: both are missing."""
    import pandas as pd  # noqa: PLC0415 -- the user's own; loaded by the first read

    columns, types, delimiter = layout.columns, layout.types, layout.delimiter
    frame = pd.read_csv(
        io.BytesIO(data), header=None, names=list(columns), index_col=False, sep=delimiter, dtype=str,
        keep_default_na=False, na_values=layout.nulls, encoding="utf-8", on_bad_lines="error",
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
            if name in layout.strict:
                row, value = _first_bad(present, types[name])
                raise BadValueError(row, name, value, types[name]) from None
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
    return numbers.astype("float64" if whole and numbers.isna().any() else PANDAS_TYPES[kind])


def _first_bad(present: Any, kind: str) -> tuple[int, str]:
    for row in range(len(present)):
        try:
            _pandas_column(present.iloc[row : row + 1], kind)
        except (ValueError, KeyError):
            return row, str(present.iloc[row])
    return 0, ""
