"""Two results of the same rows → how they differ: pure, batch after batch, in memory that does not grow with them.

Means, correlation, counts and largest differences are exact. Medians and deciles come from histograms whose bins are
cut by the leading bits of the numbers themselves, a tenth of a percent wide: so they need no second look at the data,
and do not depend on how the rows were cut into batches.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchpoint.entities.comparisons import ColumnComparison, Confusion, Mover, Spread

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_MOVERS = 20
MOST_CLASSES = 20
"""Distinct values up to which a column's pairs are counted one by one."""
SAME_DIGITS = 1e-6
"""Relative difference up to which numbers agree: single and double precision do."""
BIN_BITS = 42
"""Low bits of a double that a histogram forgets: 10 of its 52 digits stay, so a bin is under 0.1 % wide."""
MOST_WAITING = 4096
"""Bins that a histogram lets wait before it takes them in."""
LEAST_SHARE = 1e-4
"""What an empty bin counts as in the stability index, whose logarithm cannot take zero."""


class Histogram:
    """How often numbers of about the same size occur."""

    def __init__(self) -> None:
        """Empty."""
        self._keys = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)
        self._waiting: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._bins_waiting = 0

    @property
    def keys(self) -> NDArray[np.int64]:
        """Bins, ascending by the size of their numbers."""
        self._merge()
        return self._keys

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many numbers are in each of them."""
        self._merge()
        return self._counts

    def add(self, values: Floats) -> None:
        """Count finite numbers."""
        bits = np.abs(values).view(np.int64) >> BIN_BITS
        self.count(*np.unique(np.where(values < 0, -bits, bits), return_counts=True))

    def count(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Count so many numbers in each of these bins."""
        self._waiting.append((keys, counts))
        self._bins_waiting += len(keys)
        if self._bins_waiting > MOST_WAITING:
            self._merge()

    def _merge(self) -> None:
        """Take in what waits: all at once, as sorting many small arrays takes longer than sorting them together."""
        if not self._bins_waiting:
            return
        found = np.concatenate([self._keys, *(keys for keys, _ in self._waiting)])
        order = np.argsort(found, kind="stable")  # runs that are in order already
        found = found[order]
        first = np.flatnonzero(np.diff(found, prepend=found[:1] - 1))
        counts = np.concatenate([self._counts, *(counts for _, counts in self._waiting)])
        self._keys, self._counts = found[first], np.add.reduceat(counts[order], first)
        self._waiting, self._bins_waiting = [], 0

    def quantile(self, share: float) -> float:
        """The number below which this share of them lies, to the width of a bin. There has to be one."""
        key = int(self.keys[np.searchsorted(np.cumsum(self.counts), share * self.counts.sum())])
        low, high = np.array([abs(key), abs(key) + 1], np.int64) << BIN_BITS
        middle = 0.0 if key == 0 else float((low.view(np.float64) + high.view(np.float64)) / 2)
        return -middle if key < 0 else middle

    def shares(self, edges: NDArray[np.int64]) -> Floats:
        """The share of the numbers in each of the intervals that end at these bins, and in the one behind."""
        places = np.searchsorted(edges, self.keys)
        found: Floats = np.bincount(places, self.counts, len(edges) + 1) / max(1, int(self.counts.sum()))
        return found

    def deciles(self) -> NDArray[np.int64]:
        """The bins at which tenths of the numbers end, with the bin before the first of all."""
        reached = np.cumsum(self.counts) / self.counts.sum()
        tenths = self.keys[np.searchsorted(reached, np.arange(0.1, 0.95, 0.1))]
        return np.unique(np.concatenate([[self.keys[0] - 1], tenths, [self.keys[-1]]]))


def stability_index(before: Floats, after: Floats) -> float:
    """The population stability index of two distributions over the same bins."""
    used = (before > 0) | (after > 0)
    p, q = np.maximum(before[used], LEAST_SHARE), np.maximum(after[used], LEAST_SHARE)
    return float(np.sum((q - p) * np.log(q / p)))


class Spreading:
    """Collects the sizes of differences."""

    def __init__(self) -> None:
        """None yet."""
        self._sum = self._largest = 0.0
        self._number = 0
        self._histogram = Histogram()

    def add(self, sizes: Floats) -> None:
        """Take in sizes: finite and not negative."""
        if len(sizes):
            self._sum += float(sizes.sum())
            self._largest = max(self._largest, float(sizes.max()))
            self._number += len(sizes)
            self._histogram.add(sizes)

    def result(self) -> Spread | None:
        """None when there was none."""
        if not self._number:
            return None
        median = min(self._histogram.quantile(0.5), self._largest)
        return Spread(mean=self._sum / self._number, median=median, largest=self._largest)


class Correlating:
    """Pearson's correlation, batch after batch (Chan's way of joining moments, which does not cancel out)."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._number = 0
        self._means = np.zeros(2)
        self._moments = np.zeros(3)
        """Sums of squared deviations of both, and of their products."""

    def add(self, x: Floats, y: Floats) -> None:
        """Take in finite numbers."""
        number = len(x)
        if not number:
            return
        means = np.array([x.mean(), y.mean()])
        dx, dy = x - means[0], y - means[1]
        apart, total = means - self._means, self._number + number
        products = np.array([apart[0] ** 2, apart[1] ** 2, apart[0] * apart[1]])
        self._moments += np.array([dx @ dx, dy @ dy, dx @ dy]) + products * self._number * number / total
        self._means += apart * number / total
        self._number = total

    def result(self) -> float | None:
        """None when one of the two does not vary."""
        varies = self._moments[0] > 0 and self._moments[1] > 0
        if not varies or not np.all(np.isfinite(self._moments)):
            return None
        found = self._moments[2] / np.sqrt(self._moments[0]) / np.sqrt(self._moments[1])
        return float(np.clip(found, -1.0, 1.0))


@dataclass
class PairedColumn:
    """One column of both results."""

    name: str
    challenger_name: str
    numeric: bool
    """Whether both hold numbers."""
    countable: bool
    """Whether few distinct values may be classes: anything but floating-point numbers."""
    rows: int = 0
    agreeing: int = 0
    missing: list[int] = field(default_factory=lambda: [0, 0])
    pairs: Counter[tuple[Any, Any]] | None = field(default_factory=Counter)
    """How often each pair of values occurs; None once there are too many kinds."""
    movers: list[tuple[float, int, Mover]] = field(default_factory=list)
    absolute: Spreading = field(default_factory=Spreading)
    relative: Spreading = field(default_factory=Spreading)
    correlating: Correlating = field(default_factory=Correlating)
    champion: Histogram = field(default_factory=Histogram)
    challenger: Histogram = field(default_factory=Histogram)

    def add(self, keys: pa.Table, champion: pa.Array, challenger: pa.Array) -> Mask:
        """Take in the values of the same rows; say which agree. ``keys`` has ``file`` and ``row``."""
        kind = pa.float64() if self.numeric else pa.string()
        ours, theirs = champion.cast(kind, safe=False), challenger.cast(kind, safe=False)
        if self.numeric:
            agree, sizes = self._add_numbers(_floats(ours), _floats(theirs))
        else:
            agree = _mask(pc.equal(ours, theirs)) | (_mask(ours.is_null()) & _mask(theirs.is_null()))
            self._count_missing(_mask(ours.is_null()), _mask(theirs.is_null()))
            sizes = (~agree).astype(np.float64)
        if self.countable and self.pairs is not None:
            self._count_pairs(champion, challenger)
        self._note_movers(keys, champion, challenger, sizes)
        self.rows += len(agree)
        self.agreeing += int(agree.sum())
        return agree

    def result(self) -> ColumnComparison:
        """What was found."""
        classes = self.countable and self.pairs is not None
        kind: Literal["numbers", "classes", "text"] = "classes" if classes else "text"
        return ColumnComparison(
            name=self.name,
            challenger_name=None if self.challenger_name == self.name else self.challenger_name,
            kind="numbers" if self.numeric else kind,
            agreement=self.agreeing / self.rows if self.rows else None,
            missing_champion=self.missing[0],
            missing_challenger=self.missing[1],
            absolute=self.absolute.result(),
            relative=self.relative.result(),
            correlation=self.correlating.result(),
            psi=self._psi(),
            confusion=self._confusion() if classes else None,
            movers=[mover for _, _, mover in self.movers],
        )

    def _add_numbers(self, x: Floats, y: Floats) -> tuple[Mask, Floats]:
        """Which agree, and by how much the others differ; what is missing on one side differs by nothing."""
        nothing, other = np.isnan(x), np.isnan(y)
        self._count_missing(nothing, other)
        finite = np.isfinite(x) & np.isfinite(y)
        with np.errstate(invalid="ignore", over="ignore"):
            sizes = np.where(finite, np.abs(y - x), 0.0)
        agree = (x == y) | (nothing & other) | (finite & (sizes <= SAME_DIGITS * np.maximum(np.abs(x), np.abs(y))))
        countable = finite & np.isfinite(sizes)
        self.absolute.add(sizes[countable])
        divisible = countable & (np.abs(x) > np.finfo(np.float64).tiny)
        with np.errstate(over="ignore"):
            relative = sizes[divisible] / np.abs(x[divisible])
        self.relative.add(relative[np.isfinite(relative)])
        self.correlating.add(x[finite], y[finite])
        self.champion.add(x[np.isfinite(x)])
        self.challenger.add(y[np.isfinite(y)])
        return agree, sizes

    def _count_missing(self, champion: Mask, challenger: Mask) -> None:
        self.missing[0] += int((champion & ~challenger).sum())
        self.missing[1] += int((challenger & ~champion).sum())

    def _count_pairs(self, champion: pa.Array, challenger: pa.Array) -> None:
        assert self.pairs is not None
        counted = pa.table({"a": champion, "b": challenger}).group_by(["a", "b"]).aggregate([([], "count_all")])
        if counted.num_rows <= MOST_CLASSES**2:
            for one in counted.to_pylist():
                self.pairs[one["a"], one["b"]] += one["count_all"]
        kinds = ({a for a, _ in self.pairs}, {b for _, b in self.pairs})
        if counted.num_rows > MOST_CLASSES**2 or max(map(len, kinds)) > MOST_CLASSES:
            self.pairs = None

    def _note_movers(self, keys: pa.Table, champion: pa.Array, challenger: pa.Array, sizes: Floats) -> None:
        """Keep those that differ most; of equal ones the first."""
        least = self.movers[-1][0] if len(self.movers) == MOST_MOVERS else 0.0
        places = np.flatnonzero(sizes > least)
        largest = places[np.argsort(-sizes[places], kind="stable")[:MOST_MOVERS]]
        found = zip(
            keys.take(pa.array(largest)).to_pylist(),
            champion.take(pa.array(largest)).to_pylist(),
            challenger.take(pa.array(largest)).to_pylist(),
            largest.tolist(),
            strict=True,
        )
        for key, ours, theirs, at in found:
            difference = float(theirs) - float(ours) if self.numeric else None
            mover = Mover(**key, champion=_plain(ours), challenger=_plain(theirs), difference=difference)
            self.movers.append((float(sizes[at]), self.rows + at, mover))
        self.movers.sort(key=lambda one: (-one[0], one[1]))
        del self.movers[MOST_MOVERS:]

    def _psi(self) -> float | None:
        if self.numeric:
            if not len(self.champion.keys) or not len(self.challenger.keys):
                return None
            edges = self.champion.deciles()
            return stability_index(self.champion.shares(edges), self.challenger.shares(edges))
        if not self.pairs:
            return None
        kinds = list(dict.fromkeys(value for pair in self.pairs for value in pair))
        counts = np.zeros((2, len(kinds)))
        for pair, rows in self.pairs.items():
            for side in (0, 1):
                counts[side, kinds.index(pair[side])] += rows
        before, after = counts / max(1, self.rows)
        return stability_index(before, after)

    def _confusion(self) -> list[Confusion]:
        assert self.pairs is not None
        ordered = sorted(self.pairs.items(), key=lambda item: (-item[1], str(item[0])))
        return [Confusion(champion=_plain(a), challenger=_plain(b), rows=rows) for (a, b), rows in ordered]


def paired(champion: pa.Table, challenger: pa.Table, keys: tuple[list[str], list[str]]) -> tuple[pa.Table, pa.Table]:
    """The rows of both that stand for the same item, in the champion's order.

    Args:
        champion: One part's result.
        challenger: The other's.
        keys: Names of the columns ``file`` and, where there is one, ``row`` in each. Rows without them match none.
    """
    ours, theirs = (table.select(names) for table, names in zip((champion, challenger), keys, strict=True))
    width = min(ours.num_columns, theirs.num_columns)
    names = ["file", "row"][:width]
    ours, theirs = (table.select(range(width)).rename_columns(names) for table in (ours, theirs))
    if ours.equals(theirs) and not any(column.null_count for column in ours.columns):
        return champion, challenger
    left = ours.append_column("ours", pa.array(np.arange(len(ours))))
    right = theirs.append_column("theirs", pa.array(np.arange(len(theirs))))
    matches = left.join(right, keys=names, join_type="inner", use_threads=False).sort_by("ours")
    return champion.take(matches["ours"]), challenger.take(matches["theirs"])


def paired_columns(champion: pa.Schema, challenger: pa.Schema, keys: tuple[list[str], list[str]]) -> list[PairedColumn]:
    """The columns that are compared: those of one name; where there is but one on each side, those two."""
    ours = [name for name in champion.names if name not in keys[0]]
    theirs = [name for name in challenger.names if name not in keys[1]]
    pairs = [(name, name) for name in ours if name in theirs]
    if not pairs and len(ours) == len(theirs) == 1:
        pairs = [(ours[0], theirs[0])]
    return [_paired_column(champion.field(one), challenger.field(other)) for one, other in pairs]


def key_columns(schema: pa.Schema) -> list[str]:
    """``file`` and ``row`` as a result has them: a column of the script's own by that name has renamed the key."""
    found = []
    for name in ("file", "row"):
        renamed = f"input_{name}"
        if renamed in schema.names and name in schema.names:
            found.append(renamed)
        elif name in schema.names:
            found.append(name)
    return found


def _paired_column(one: pa.Field, other: pa.Field) -> PairedColumn:
    numeric = all(_is_number(each.type) for each in (one, other))
    exact = all(not pa.types.is_floating(each.type) and not pa.types.is_decimal(each.type) for each in (one, other))
    flat = all(not pa.types.is_nested(each.type) for each in (one, other))
    return PairedColumn(one.name, other.name, numeric=numeric, countable=exact and flat)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _floats(values: pa.Array) -> Floats:
    """What is missing as NaN."""
    found: Floats = pc.fill_null(values, float("nan")).to_numpy(zero_copy_only=False)
    return found


def _mask(values: pa.Array) -> Mask:
    found: Mask = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return found


def _plain(value: Any) -> Any:
    """As JSON knows it."""
    if isinstance(value, float) and not np.isfinite(value):
        return None if value != value else str(value)  # noqa: PLR0124 -- NaN is the one value unlike itself
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
