"""Safe cuts through one large csv, jsonl, json or parquet file: which bytes and rows make a slice.

Planning reads each csv and jsonl file once, in blocks of the size of a slice, and counts the rows of each block: where
a block has no quote, by counting line feeds; where it has, by the parity of the quotes before each line feed, after
checking that every quote opens at the start of a field; else by the tokenizer that workers use. numpy and pyarrow are
imported when first needed, so that a runner starts quickly.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, cast

from batchpoint.entities.endpoints import CsvOptions
from batchpoint.scoring import csv_records, json_rows, slice_bytes
from batchpoint.scoring.csv_records import BOM, HEAD_BYTES, LONGEST_RECORD, UnreadableRowsError

if TYPE_CHECKING:
    from batchpoint.scoring.mini_batches import InputFile

Format = Literal["csv", "jsonl", "json", "parquet"]

FORMATS: dict[str, Format] = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".parquet": "parquet", ".pqt": "parquet",
}  # fmt: skip
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")

_CHUNK = 1 << 20
_ROWS_BLOCK = 1 << 22
"""How much is read at a time when the cuts are counted in rows."""
_NUMPY_PAYS = 1 << 22
"""Blocks from this size on are counted with numpy: twice as fast, once it is imported."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the beginning of a tabular file says."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    """Arrow type names, guessed for csv and jsonl."""
    texts: frozenset[str] = frozenset()
    """Columns that hold text and nothing else, as far as was looked: never a number."""
    offset: int = 0
    """Where the data rows begin (csv)."""


class Cut(NamedTuple):
    """A slice of a file: see ``mini_batches.Slice``."""

    offset: int
    length: int
    first_row: int
    rows: int


def format_of(name: str) -> Format | None:
    """The format that a file's ending names, compressed or not; None when it is not tabular."""
    path = PurePosixPath(name.lower())
    if path.suffix in COMPRESSIONS:
        path = path.with_suffix("")
        return None if FORMATS.get(path.suffix) == "parquet" else FORMATS.get(path.suffix)
    return FORMATS.get(path.suffix)


def prepared(file: InputFile, kind: Format, csv: CsvOptions, folder: Path) -> InputFile:
    """The file uncompressed and in UTF-8: itself, or a copy under ``folder/inputs/plain``.

    Raises:
        UnreadableRowsError: it cannot be decompressed or decoded.
    """
    suffix = PurePosixPath(file.name.lower()).suffix
    compressed = suffix in COMPRESSIONS
    encoding = _codec_name(csv.encoding) if kind == "csv" else "utf-8"
    if not compressed and encoding == "utf-8":
        return file
    target = folder / "inputs" / "plain" / file.name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        try:
            with _opened(file.path, suffix) as source, partial.open("wb") as copy:
                _transcode(source, copy, encoding)
        except (OSError, EOFError, lzma.LZMAError, UnicodeError) as error:
            partial.unlink(missing_ok=True)
            what = f"decoded as {csv.encoding}" if isinstance(error, UnicodeError) else "decompressed"
            raise UnreadableRowsError(f"{file.name} cannot be {what}: {error}.") from None
        partial.replace(target)
    return replace(file, path=str(target), size=target.stat().st_size)


def head_of(file: InputFile, kind: Format, csv: CsvOptions, sample: int = csv_records.SAMPLE_ROWS) -> Head:
    """Columns and types of a prepared file. No columns means an empty file.

    The types of csv columns are guessed from ``sample`` rows; where they are not needed, none is read.

    Raises:
        UnreadableRowsError: the file is damaged, or not what its ending says.
    """
    if kind == "parquet":
        return _parquet_head(file)
    if kind == "json":
        return _rows_head(json_rows.read_json_array(file.path)[: csv_records.SAMPLE_ROWS])
    if kind == "jsonl":
        return _json_lines_head(file)
    options = csv.model_dump()
    delimiter = csv_records.delimiter_of(file.name, options)
    columns, offset = csv_records.header_of(file.path, delimiter, options)
    with Path(file.path).open("rb") as handle:
        handle.seek(offset)
        head = handle.read(HEAD_BYTES) if sample else b""
        is_whole = bool(sample) and not handle.read(1)
    types, texts = csv_records.sample_types(head, columns, delimiter, csv.null_values, sample, is_whole=is_whole)
    return Head(columns, types, frozenset(texts), offset)


def cut(
    file: InputFile, kind: Format, csv: CsvOptions, head: Head, *, size: int | None, rows: int | None
) -> Iterator[Cut]:
    """Slices of a prepared file, in order: of about ``size`` bytes, or ending at each multiple of ``rows`` rows.

    Every data row is in exactly one slice. Memory stays within a few slices, whatever the size of the file.

    Raises:
        UnreadableRowsError: the file is damaged, or a quote in it never ends.
    """
    if kind == "parquet":
        yield from _parquet_slices(file, size=size, rows=rows)
    elif kind == "json":
        total = len(json_rows.read_json_array(file.path))
        step = rows or total or 1
        for first in range(0, total, step):
            yield Cut(0, file.size, first, min(step, total - first))
    else:
        delimiter = csv_records.delimiter_of(file.name, csv.model_dump()) if kind == "csv" else None
        first = 0
        for offset, block, length, total in _blocks(file, head.offset, size or _ROWS_BLOCK, delimiter):
            cuts = _within(block[:length], rows, first, delimiter) if rows else [(0, length, total)]
            for begin, end, count in cuts:
                if count:
                    yield Cut(offset + begin, end - begin, first, count)
                    first += count


def row_bytes(
    file: InputFile, kind: Format, csv: CsvOptions, place: tuple[int, int], rows: tuple[int, int]
) -> tuple[int, int]:
    """Where the rows ``rows[0]`` to ``rows[1]`` of a slice of csv or jsonl begin and end, counted from its beginning.

    ``place`` is the offset and the length of the slice.
    """
    with Path(file.path).open("rb") as handle:
        handle.seek(place[0])
        data = handle.read(place[1])
    delimiter = csv_records.delimiter_of(file.name, csv.model_dump()) if kind == "csv" else None
    bounds = _bounds(data, delimiter)
    return bounds[rows[0]][0], bounds[rows[1] - 1][1]


# ------------------------------------------------------------------------------------------- decompress and transcode


def _codec_name(encoding: str) -> str:
    """``utf-8`` for every encoding whose bytes are UTF-8 as they are (a byte order mark is skipped anyway)."""
    try:
        name = codecs.lookup(encoding.replace(" ", "-").removesuffix("-bom")).name
    except LookupError:
        raise UnreadableRowsError(f"csv.encoding {encoding!r} is not known. Use utf-8, latin-1, utf-16, …") from None
    return "utf-8" if name in {"utf-8", "utf-8-sig", "ascii"} else name


def _opened(path: str, suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if suffix == ".bz2":
        return bz2.open(path, "rb")
    if suffix == ".xz":
        return lzma.open(path, "rb")
    if suffix == ".zst":
        import pyarrow as pa  # noqa: PLC0415 -- costs 0.1 s, and few files need it

        stream: IO[bytes] = pa.input_stream(path, compression="zstd")
        return stream
    return Path(path).open("rb")


def _transcode(source: IO[bytes], copy: IO[bytes], encoding: str) -> None:
    decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
    while chunk := source.read(_CHUNK):
        copy.write(decoder.decode(chunk).encode() if decoder else chunk)
    if decoder:
        copy.write(decoder.decode(b"", final=True).encode())
    copy.flush()
    os.fsync(copy.fileno())


# ---------------------------------------------------------------------------------------------------------- csv, jsonl


def _blocks(file: InputFile, offset: int, size: int, delimiter: str | None) -> Iterator[tuple[int, bytes, int, int]]:
    """Runs of whole records of about ``size`` bytes: where each begins, its bytes, how many count, how many records."""
    with Path(file.path).open("rb") as handle:
        if delimiter is None and handle.read(len(BOM)) == BOM:
            offset = len(BOM)
        wanted = size
        while True:
            # The rest of the block before is read again: that is cheaper than joining it to the next.
            handle.seek(offset)
            data = handle.read(wanted)
            last = len(data) < wanted
            end, count = _whole_records(data, delimiter)
            if last:
                end, count = len(data), count + len(_bounds(data[end:], delimiter))
            if end:
                yield offset, data, end, count
                offset, wanted = offset + end, size
            elif wanted > max(LONGEST_RECORD, 2 * size):
                raise UnreadableRowsError(f"{file.name}: the record at byte {offset} never ends: is a quote missing?")
            else:
                wanted *= 2
            if last:
                return


def _whole_records(data: bytes, delimiter: str | None) -> tuple[int, int]:
    """End of the last record that surely ends in ``data`` (0 when none does), and how many records end until there."""
    if _has_lone_return(data) and delimiter is not None:
        return _slowly(data, delimiter)
    if delimiter is None or b'"' not in data:
        end = data.rfind(b"\n") + 1
        ends, blank = _line_feeds(data, end, spaces=delimiter is None)
        return end, len(_bounds(data[:end], delimiter)) if blank else ends
    found = _quoted_ends(data, delimiter)
    return _slowly(data, delimiter) if found is None else found


def _slowly(data: bytes, delimiter: str) -> tuple[int, int]:
    """The same by the tokenizer. The last record may go on in the next block, and so may a ``\r\n`` cut in two."""
    bounds = csv_records.record_bounds(data, delimiter)
    return (bounds[-1][0], len(bounds) - 1) if bounds else (0, 0)


def _bounds(data: bytes, delimiter: str | None) -> list[tuple[int, int]]:
    return slice_bytes.line_bounds(data) if delimiter is None else csv_records.record_bounds(data, delimiter)


def _line_feeds(data: bytes, end: int, *, spaces: bool) -> tuple[int, bool]:
    """How many lines end before ``end``, and whether some line may be blank (or, with ``spaces``, hold only spaces)."""
    if len(data) < _NUMPY_PAYS:
        blank = data.startswith((b"\n", b"\r", b" ", b"\t")) or b"\n\n" in data or (b"\r" in data and b"\n\r" in data)
        return data.count(b"\n", 0, end), blank or (spaces and (b"\n " in data or b"\n\t" in data))
    import numpy as np  # noqa: PLC0415 -- costs 0.1 s, which only large files earn back

    array = np.frombuffer(data, dtype=np.uint8)
    feeds = np.flatnonzero(array[:end] == 10)
    return len(feeds), bool(array[0] <= 32 or (array[feeds[:-1] + 1] <= 32).any())


def _has_lone_return(block: bytes) -> bool:
    return b"\r" in block and block.count(b"\r") != block.count(b"\r\n")


def _quoted_ends(data: bytes, delimiter: str) -> tuple[int, int] | None:
    """Ends of records by parity of quotes; None when parity cannot be trusted.

    It can when every quote at an even place stands at the start of a field, or directly after a closing quote (where it
    is the second half of a doubled one), and no line is blank.
    """
    import numpy as np  # noqa: PLC0415 -- costs 0.1 s, and files without quotes do not need it

    array = np.frombuffer(data, dtype=np.uint8)
    feeds = np.flatnonzero(array == 10)
    quotes = np.flatnonzero(array == 34)
    opening = quotes[::2]
    before = array[opening - 1]
    fine = (before == ord(delimiter)) | (before == 10) | (opening == 0)
    fine[1:] |= opening[1:] == quotes[1::2][: len(opening) - 1] + 1
    ends = feeds[np.searchsorted(quotes, feeds) % 2 == 0] + 1
    if not fine.all() or not len(ends):
        return None if len(ends) or not fine.all() else (0, 0)
    starts = ends[ends < len(data)]
    return None if array[0] <= 32 or (array[starts] <= 32).any() else (int(ends[-1]), len(ends))


def _within(block: bytes, rows: int, first: int, delimiter: str | None) -> Iterator[tuple[int, int, int]]:
    """Cuts of a block so that slices end where ``rows`` rows of the file are full."""
    bounds = _bounds(block, delimiter)
    position = 0
    while position < len(bounds):
        count = min(rows - (first + position) % rows, len(bounds) - position)
        yield bounds[position][0], bounds[position + count - 1][1], count
        position += count


def _json_lines_head(file: InputFile) -> Head:
    import json  # noqa: PLC0415 -- kept beside its one use

    with Path(file.path).open("rb") as handle:
        start = handle.read(HEAD_BYTES).removeprefix(BOM)
    lines = [line for line in start.split(b"\n")[:-1] or [start] if line.strip()][: csv_records.SAMPLE_ROWS]
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    if lines and not rows:
        raise UnreadableRowsError(f"{file.name} does not hold one JSON object a line.")
    return _rows_head(rows)


def _rows_head(rows: list[object]) -> Head:
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items() if isinstance(row, dict) else ():
            kinds.setdefault(name, set()).add("null" if value is None else type(value).__name__)
    types = []
    for seen in kinds.values():
        present = seen - {"null"}
        if present == {"bool"}:
            types.append("bool")
        elif present <= {"int", "float"} and present:
            types.append("int64" if seen == {"int"} else "double")
        else:
            types.append("string")
    texts = frozenset(name for name, seen in kinds.items() if seen - {"null"} == {"str"})
    return Head(tuple(kinds), tuple(types), texts)


# ------------------------------------------------------------------------------------------------------------- parquet


def _parquet_head(file: InputFile) -> Head:
    import pyarrow as pa  # noqa: PLC0415 -- costs 0.1 s, and csv does not need it
    from pyarrow import parquet  # noqa: PLC0415 -- the same

    try:
        schema = parquet.read_schema(file.path)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableRowsError(f"{file.name} is not a whole parquet file: {error}") from None
    types = tuple(str(kind) for kind in schema.types)
    texts = frozenset(
        name for name, kind in zip(schema.names, types, strict=True) if kind in {"string", "large_string"}
    )
    return Head(tuple(schema.names), types, texts)


def _parquet_slices(file: InputFile, *, size: int | None, rows: int | None) -> Iterator[Cut]:
    """Cuts at row groups, and inside those that are larger than a slice."""
    from pyarrow import parquet  # noqa: PLC0415 -- costs 0.1 s, and csv does not need it

    metadata = parquet.read_metadata(file.path)
    first = 0
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group)
        end = first + chunk.num_rows
        bytes_per_row = max(chunk.total_byte_size / max(chunk.num_rows, 1), 1)
        pieces = max(1, round(chunk.total_byte_size / size)) if size else 1
        step = rows or max(1, -(-chunk.num_rows // pieces))
        while first < end:
            count = min(step - first % step if rows else step, end - first)
            yield Cut(0, int(count * bytes_per_row), first, count)
            first += count
