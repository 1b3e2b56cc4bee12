"""What the columns of one part hold, in short. Runs under the deployment's interpreter, by columns, with numpy.

A sketch has a fixed size at most, however many rows it stands for, and sketches of parts add up to that of the whole
(``profile.py``). Rows, missing values, smallest and largest number, mean and variance are those of all rows. What a
histogram, the most frequent texts and the number of different ones need a closer look for is taken from ``SAMPLE``
rows of the part, spread evenly. A histogram's bins are cut by the leading bits of the numbers, as in a comparison;
texts fall into buckets by their hashes: any number of them adds up, and none has to be chosen.

Only the standard library is imported; numpy, pandas and pyarrow are touched when the columns are theirs. The code keeps
to Python 3.7: environments of older models have it.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections import Counter
from typing import Any, Callable, Iterable

SAMPLE = 512
"""Rows of a part whose values are looked at one by one."""
BIN_BITS = 42
"""Low bits of a double that a histogram forgets, as in ``comparison.py``: a bin is under 0.1 % wide."""
BEHIND = 2**31 - 1
"""No bin: 22 bits are left of a double."""
BUCKET_BITS = 12
"""Bits of a hash that tell a text's bucket: two texts seldom share one of 4,096."""
MOST_TEXTS = 64
"""Different texts of a part that are counted by name."""
LONGEST_TEXT = 100
"""Characters of a text that are told apart."""
LEAST_HASHES = 64
"""Hashes of texts that are kept, the smallest: what they are spread over tells how many different texts there are."""
MOST_COLUMNS = 256
"""Columns of a table that are looked at, the first, beside those that a check names: a table may have thousands, and a
sketch must stay small."""
GOLDEN_SECTION = 0.6180339887498949
"""Steps of this part of the whole spread evenly and never fall in with a period of the data."""

Sketch = Any
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Sketcher:
    """Sketches what goes into ``run()`` and what comes out. It never raises: predictions matter more."""

    def __init__(self, tabulate: Callable[[Any], Any], checked: Iterable[str] = ()) -> None:
        """Take a result apart with ``tabulate``, into columns by their names in the output; look at all ``checked``."""
        self._tabulate = tabulate
        self._checked = frozenset(checked)
        self._places: dict[int, Any] = {}
        self._input, self._left_out = "", 0
        self._bins: list[bytes] = []
        self._rooms: Any = None

    def take(self, items: Any) -> None:
        """Look at what ``run()`` will be given; it may change it. Lists of paths have no columns."""
        self._input, self._left_out, self._bins = "", 0, []
        if hasattr(items, "columns"):
            self._input = self._guarded(lambda: {str(name): column for name, column in items.items()})

    def told(self, result: Any) -> bytes:
        """The sketch of a part: of its items, and of what ``run()`` returned for them. Empty when there is none.

        A line of JSON, then the ``bins`` of each column of numbers or texts, ascending, and where the values of each
        end when they are sorted too: four bytes each.
        """
        given = self._input
        returned = self._guarded(lambda: self._tabulate(result))
        left_out, bins = self._left_out, self._bins
        self._input, self._left_out, self._bins = "", 0, []
        if not given and not returned:
            return b""
        beside = f',"left_out":{left_out}' if left_out else ""
        return b"".join([f'{{"input":{{{given}}},"output":{{{returned}}}{beside}}}\n'.encode(), *bins])

    def _guarded(self, columns: Callable[[], dict[str, Any]]) -> str:
        """The sketches of columns as members of a JSON object; one that cannot be looked at has its rows alone."""
        try:
            import numpy as np  # noqa: PLC0415 -- the user's, if there is any

            whole = columns()
            table = [
                (name, column)
                for at, (name, column) in enumerate(whole.items())
                if at < MOST_COLUMNS or name in self._checked
            ]
        except Exception:  # noqa: BLE001 -- whatever a script returns: its rows are written all the same, or refused
            return ""
        self._left_out += len(whole) - len(table)
        found = []
        with np.errstate(all="ignore"):  # infinite numbers, and sums that become so
            for name, column in table:
                try:
                    sketch, bins = self._sketch(np, column)
                    told = _encode(sketch)
                    self._bins += bins
                except Exception:  # noqa: BLE001 -- values of any class, which may refuse to be compared
                    told = _encode({"kind": "unseen", "rows": len(column) if hasattr(column, "__len__") else 0})
                found.append(f"{_encode(name)}:{told}")
        return ",".join(found)

    def _sketch(self, numpy: Any, column: Any) -> tuple[Sketch, list[bytes]]:
        rows = len(column)
        kind, values = _kind_of(numpy, column)
        if kind == "numbers":
            return self._numbers(numpy, values, rows)
        if kind == "truths":
            counts: dict[Any, int] = Counter(values)
            top = [[str(value), counts[value]] for value in (False, True) if counts[value]]
            missing = rows - counts[True] - counts[False]
            return {"kind": "truths", "rows": rows, "missing": missing, "weight": 1, "top": top}, []
        missing = _missing(column)
        if kind != "texts":
            return {"kind": "others", "rows": rows, "missing": missing}, []
        return self._texts(numpy, column, rows, missing)

    def _numbers(self, numpy: Any, array: Any, rows: int) -> tuple[Sketch, list[bytes]]:
        work, whole = self._room(numpy, rows)
        if array.dtype != "f8":
            numpy.copyto(whole, array, casting="unsafe")
            array = whole
        values = array
        told: dict[str, Any] = {"kind": "numbers", "rows": rows, "missing": 0, "infinite": 0}
        total = values.sum()
        if not math.isfinite(total):
            missing, finite = numpy.isnan(values), numpy.isfinite(values)
            told["missing"] = int(missing.sum())
            told["infinite"] = rows - told["missing"] - int(finite.sum())
            values = values[finite]
            total = values.sum()
        if not len(values):
            return told, []
        mean = total / len(values)
        # Never a product of vectors: its last digits go by the number of threads.
        apart = numpy.subtract(values, mean, out=work[: len(values)])
        squares = numpy.square(apart, out=apart).sum()
        told["mean"], told["squares"] = _finite(mean), _finite(squares)
        told["least"], told["most"] = float(values.min()), float(values.max())
        places, told["weight"] = self._sample(numpy, len(values))
        sample = values if places is None else values[places]
        told["bins"], bins = _bins(numpy, sample)
        return told, bins

    def _room(self, numpy: Any, rows: int) -> tuple[Any, Any]:
        """Two arrays of so many numbers: new ones would be asked of the system for each column anew."""
        if self._rooms is None or len(self._rooms[0]) < rows:
            self._rooms = numpy.empty((2, rows))
        return self._rooms[0][:rows], self._rooms[1][:rows]

    def _texts(self, numpy: Any, column: Any, rows: int, missing: int) -> tuple[Sketch, list[bytes]]:
        places, weight = self._sample(numpy, rows)
        counts: dict[str, int] = {}
        for value, count in Counter(_taken(column, places)).items():
            if not _is_missing(value):
                text = str(value)[:LONGEST_TEXT]
                counts[text] = counts.get(text, 0) + count
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        hashes = [zlib.crc32(text.encode("utf-8", "surrogatepass")) for text in counts]
        used, bins = _buckets(numpy, hashes, list(counts.values()))
        told = {
            "kind": "texts",
            "rows": rows,
            "missing": missing,
            "weight": weight,
            "top": [list(item) for item in ordered[:MOST_TEXTS]],
            "hashes": sorted(set(hashes))[:LEAST_HASHES],
            "bins": used,
        }
        return told, bins

    def _sample(self, numpy: Any, rows: int) -> tuple[Any, int]:
        """The rows to look at, None for all; and how many rows each of them stands for."""
        weight = -(-rows // SAMPLE)
        if weight <= 1:
            return None, 1
        if rows not in self._places:
            steps = numpy.arange(rows // weight) * GOLDEN_SECTION
            if len(self._places) > 64:
                self._places.clear()
            self._places[rows] = ((steps - numpy.floor(steps)) * rows).astype("i8")
        return self._places[rows], weight


def _bins(numpy: Any, numbers: Any) -> tuple[int, list[bytes]]:
    """How many bins finite numbers fall into; which ones, ascending, and the place of the last number of each."""
    bits = numpy.empty(len(numbers) + 1, "<i4")
    bits[-1] = BEHIND
    numpy.right_shift(numpy.abs(numbers).view("i8"), BIN_BITS, out=bits[:-1], casting="unsafe")
    numpy.negative(bits[:-1], out=bits[:-1], where=numbers < 0)
    return _packed(numpy, bits)


def _buckets(numpy: Any, hashes: list[int], counts: list[int]) -> tuple[int, list[bytes]]:
    """The same of so many texts of each hash.

    The check sums of texts in a row, as numbers of orders are, lie in a pattern, which would differ from job to job:
    they are mixed, as MurmurHash3 does at its end.
    """
    mixed = numpy.array(hashes, "u4")
    mixed = (mixed ^ (mixed >> 16)) * numpy.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * numpy.uint32(0xC2B2AE35)
    places = numpy.repeat((mixed >> (32 - BUCKET_BITS)).astype("<i4"), counts)
    return _packed(numpy, numpy.append(places, numpy.array(BEHIND, "<i4")))


def _packed(numpy: Any, bins: Any) -> tuple[int, list[bytes]]:
    """How many different ones there are before ``BEHIND``; which, ascending, and the place of the last of each."""
    bins.sort()
    ends = numpy.flatnonzero(bins[1:] != bins[:-1])
    return len(ends), [bins[ends].tobytes(), ends.astype("<i4").tobytes()]


def _kind_of(numpy: Any, column: Any) -> tuple[str, Any]:
    """The kind of a list or of a column of any package; with an array of numbers, or with the truth values."""
    if isinstance(column, (list, tuple)):
        return _kind_of_list(numpy, column, column)
    if type(column).__module__.partition(".")[0] == "pyarrow":
        return _kind_of_arrow(column)
    if isinstance(column.dtype, numpy.dtype):
        return _kind_of_array(numpy, column.to_numpy() if hasattr(column, "to_numpy") else column)
    kind = column.dtype.kind
    if kind in "iuf":  # pandas' own types, with a word for what is missing
        return "numbers", column.to_numpy("f8", na_value=float("nan"))
    if kind == "b":
        return "truths", [value for value in column.tolist() if not _is_missing(value)]
    is_text = kind not in "mM" and type(column.dtype).__name__ in ("StringDtype", "CategoricalDtype", "ArrowDtype")
    return ("texts" if is_text else "others"), None


def _kind_of_arrow(column: Any) -> tuple[str, Any]:
    name = str(column.type)
    if name.startswith(("int", "uint", "float", "double", "halffloat", "decimal")):
        return "numbers", column.cast("float64", safe=False).to_numpy(zero_copy_only=False)
    if name == "bool":
        return "truths", [value for value in column.to_pylist() if value is not None]
    return ("texts" if name in ("string", "large_string", "string_view") else "others"), None


def _kind_of_array(numpy: Any, array: Any) -> tuple[str, Any]:
    kind = array.dtype.kind
    if kind in "iuf":
        return "numbers", array
    if kind == "b":
        true = int(array.sum())
        return "truths", {True: true, False: len(array) - true}
    if kind == "O":
        return _kind_of_list(numpy, array, array[:SAMPLE].tolist())
    return ("texts" if kind == "U" else "others"), None


def _kind_of_list(numpy: Any, column: Any, front: Any) -> tuple[str, Any]:
    """The kind of Python objects, of which those in front speak for the whole."""
    kinds = {type(value) for value in front if not _is_missing(value)}
    if not kinds:
        return "texts", None  # none is counted, so that this column may turn out to be anything
    truths, numbers = (bool, numpy.bool_), (int, float, numpy.bool_, numpy.integer, numpy.floating)
    if kinds <= set(truths):
        return "truths", [value for value in column if isinstance(value, truths)]
    rest = {kind for kind in kinds if not issubclass(kind, numbers) or issubclass(kind, numpy.timedelta64)}
    if not rest:
        return "numbers", numpy.asarray(column, "f8")
    return ("texts" if rest <= {str, numpy.str_} else "others"), None


def _missing(column: Any) -> int:
    """How many values of a column without numbers are missing."""
    if hasattr(column, "null_count"):
        return int(column.null_count)
    if hasattr(column, "isna"):
        return int(getattr(column, "array", column).isna().sum())  # of the values alone: pandas makes no new column
    pandas = sys.modules.get("pandas")
    values = column if isinstance(column, (list, tuple)) else column.tolist()
    if pandas is not None:
        return int(pandas.isna(pandas.Series(values, dtype=object)).sum())
    return sum(value is None for value in values)


def _taken(column: Any, places: Any) -> Any:
    """The values at these places; of all, where there are none."""
    if isinstance(column, (list, tuple)):
        return column if places is None else [column[at] for at in places.tolist()]
    if hasattr(column, "iloc"):
        return (column.array if places is None else column.array.take(places)).tolist()
    if hasattr(column, "to_pylist"):
        return (column if places is None else column.take(_arrow_places(places))).to_pylist()
    return (column if places is None else column[places]).tolist()


def _arrow_places(places: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415 -- the column is pyarrow's

    return pa.array(places)


def _is_missing(value: Any) -> bool:
    """None, NaN, NaT and pandas' NA."""
    if value is None or type(value) is str:
        return value is None
    is_nan = isinstance(value, float) and math.isnan(value)
    return is_nan or type(value).__name__ in ("NAType", "NaTType")


def _finite(value: Any) -> float | None:
    """A number as JSON knows it."""
    return float(value) if math.isfinite(value) else None
