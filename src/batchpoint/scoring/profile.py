"""Sketches of parts, in the order of the input → profiles of columns: the same however many workers there were."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from batchpoint.entities.quality import ColumnProfile, Side, TextCount
from batchpoint.errors import OutputError
from batchpoint.scoring.comparison import Histogram
from batchpoint.scoring.ledger import Record
from batchpoint.scoring.predictions_file import OpenSegments

MOST_TEXTS = 20
"""Texts that a profile names."""
COUNTED_TEXTS = 1024
"""Texts that are counted by name while sketches are added up."""
LEAST_HASHES = 256
"""Hashes from whose spread the number of different texts is estimated; below that they are counted."""
HASHES = 2**32
PART_HASHES = 64
"""Hashes that the sketch of a part has at most."""
BUCKETS = 4096
"""Buckets into which the sketch of a part sorts texts."""
MOST_BUCKETS = 256
"""Buckets of texts that a profile has at most."""
_QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}

Floats = NDArray[np.float64]
Sketch = Mapping[str, Any]
Columns = dict[tuple[Side, str], "Column"]


@dataclass
class Column:
    """One column, as far as its sketches were added."""

    side: Side
    name: str
    kind: str = ""
    """Empty until a value was seen."""
    rows: int = 0
    """Rows whose values were looked at."""
    unseen: int = 0
    """Rows beside these: their values could not be looked at, or their part has no such column."""
    missing: int = 0
    looked_at: int = 0
    infinite: int = 0
    finite: int = 0
    least: float = float("inf")
    most: float = float("-inf")
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared deviations from the mean."""
    histogram: Histogram = field(default_factory=Histogram)
    """Of numbers; or of texts, by their buckets."""
    texts: Counter[str] = field(default_factory=Counter)
    hashes: set[int] = field(default_factory=set)
    known_up_to: int = HASHES - 1
    """Of every part each hash up to this one is known: how many there are tells how many there would be in all."""

    def add(self, sketch: Sketch) -> None:
        """Take in the sketch of the next part."""
        if sketch["kind"] == "unseen":
            return
        self.rows += sketch["rows"]
        self.missing += sketch["missing"]
        if sketch["missing"] == sketch["rows"]:
            return  # of no kind
        self.kind = sketch["kind"] if self.kind in {"", sketch["kind"]} else "others"
        if self.kind == "numbers":
            self._add_numbers(sketch)
        elif self.kind == "truths":
            self._add_top(sketch)
            self.looked_at += sum(count for _, count in sketch["top"])
        elif self.kind == "texts":
            self._add_texts(sketch)

    def result(self) -> ColumnProfile:
        """What was found."""
        kind = cast("Literal['numbers', 'texts', 'truths', 'others']", self.kind or "others")
        profile = ColumnProfile(side=self.side, name=self.name, kind=kind, rows=self.rows, missing=self.missing)
        profile.looked_at, profile.unseen = self.looked_at, self.unseen
        if kind == "numbers":
            return profile.model_copy(update=self._numbers())
        if kind in {"texts", "truths"}:
            ordered = sorted(self.texts.items(), key=lambda item: (-item[1], item[0]))[:MOST_TEXTS]
            top = [TextCount(value=value, rows=rows) for value, rows in ordered]
            if kind == "truths":
                return profile.model_copy(update={"top": top, "distinct": len(self.texts)})
            return profile.model_copy(update={"top": top, "distinct": self._distinct(), **self._buckets()})
        return profile

    def _add_numbers(self, sketch: Sketch) -> None:
        self.infinite += sketch["infinite"]
        number = sketch["rows"] - sketch["missing"] - sketch["infinite"]
        if not number:
            return
        if sketch["mean"] is None or sketch["squares"] is None:
            self.mean = self.squares = float("nan")  # too large to be added up
        else:
            apart, total = sketch["mean"] - self.mean, self.finite + number
            self.squares += sketch["squares"] + apart * apart * self.finite * number / total
            self.mean += apart * number / total
        self.finite += number
        self.least, self.most = min(self.least, sketch["least"]), max(self.most, sketch["most"])
        self._add_bins(sketch)

    def _add_bins(self, sketch: Sketch) -> None:
        bins, ends = sketch["bins"]
        counts = np.diff(ends, prepend=-1)
        self.looked_at += int(counts.sum())
        self.histogram.count(bins, counts * sketch["weight"])

    def _add_top(self, sketch: Sketch) -> None:
        for text, count in sketch["top"]:
            self.texts[text] += count * sketch["weight"]

    def _add_texts(self, sketch: Sketch) -> None:
        self._add_bins(sketch)
        self._add_top(sketch)
        if len(self.texts) > 2 * COUNTED_TEXTS:
            kept = sorted(self.texts.items(), key=lambda item: (-item[1], item[0]))[:COUNTED_TEXTS]
            self.texts = Counter(dict(kept))
        hashes = sketch["hashes"]
        self.hashes.update(hashes)
        if len(hashes) >= PART_HASHES:  # above the largest of them nothing is known of this part
            self.known_up_to = min(self.known_up_to, hashes[-1])
        if len(self.hashes) > LEAST_HASHES:
            self.known_up_to = min(self.known_up_to, sorted(self.hashes)[LEAST_HASHES - 1])
        self.hashes = {hash_ for hash_ in self.hashes if hash_ <= self.known_up_to}

    def _distinct(self) -> int:
        return round(len(self.hashes) * HASHES / (self.known_up_to + 1))

    def _buckets(self) -> dict[str, Any]:
        """The shares of as many buckets as a profile may have."""
        counts: Floats = np.bincount(self.histogram.keys, self.histogram.counts, BUCKETS).astype(np.float64)
        while np.count_nonzero(counts) > MOST_BUCKETS:
            counts = folded(counts)
        used = np.flatnonzero(counts)
        shares = [round(float(share), 9) for share in counts[used] / max(1.0, float(counts.sum()))]
        return {"bucket_count": len(counts), "buckets": used.tolist(), "shares": shares}

    def _numbers(self) -> dict[str, Any]:
        found: dict[str, Any] = {"infinite": self.infinite}
        if not self.finite:
            return found
        cuts = self.histogram.deciles()
        deviation = float(np.sqrt(self.squares / self.finite))
        return found | {
            "least": self.least,
            "most": self.most,
            "mean": _rounded(self.mean),
            "deviation": _rounded(deviation),
            "quantiles": {
                name: min(max(self.histogram.quantile(share), self.least), self.most)
                for name, share in _QUANTILES.items()
            },
            "cuts": cuts.tolist(),
            "shares": [round(float(share), 9) for share in self.histogram.shares(cuts)],
        }


class Looked(NamedTuple):
    """What was looked at in a run."""

    items: int
    """Those of the parts that have a sketch."""
    columns: list[Column]
    """Inputs first."""
    left_out: int
    """Columns that no sketch is of, as their table has so many."""


class Profiles:
    """The columns of a run, as far as its mini-batches were added."""

    def __init__(self, segments: Path) -> None:
        """None yet. Relative segment paths start from the folder ``segments``."""
        self._opened = OpenSegments(segments)
        self._columns: Columns = {}
        self._rows: Counter[Side] = Counter()
        self._items = self._left_out = 0

    def close(self) -> None:
        """Let go of the segments."""
        self._opened.close()

    def add(self, record: Record) -> None:
        """Take in the sketches of the mini-batch that comes next in the order of the input.

        Raises:
            OutputError: a segment is shorter than the ledger says.
        """
        for part in sorted(record.parts, key=lambda part: part.start):
            told: Mapping[str, Any] = {"input": {}, "output": {}}
            if part.sketched:
                self._items += part.ok
                told = read(self._opened.read(part.segment, part.offset + part.length, part.sketched))
                self._left_out = max(self._left_out, told.get("left_out", 0))
            for side, name, sketch in _each(told):
                self._columns.setdefault((side, name), Column(side, name)).add(sketch)
            given: dict[Side, int] = {"input": part.ok, "output": part.rows or part.ok}
            for side, number in given.items():
                self._rows[side] += max((sketch["rows"] for sketch in told[side].values()), default=number)

    def looked(self) -> Looked:
        """What the sketches tell, once all were added."""
        for column in self._columns.values():
            column.unseen = self._rows[column.side] - column.rows
        inputs = [column for (side, _), column in self._columns.items() if side == "input"]
        outputs = [column for (side, _), column in self._columns.items() if side == "output"]
        return Looked(self._items, [*inputs, *outputs], self._left_out)


def folded(buckets: Floats) -> Floats:
    """Half as many buckets: what was in the upper half is counted with the lower."""
    halves: Floats = buckets.reshape(2, -1).sum(axis=0)
    return halves


def read(data: bytes) -> Mapping[str, Any]:
    """The sketch of a part, as ``sketches.py`` made it: by ``input`` and ``output``, then by the columns' names.

    Raises:
        OutputError: it is none.
    """
    line, _, behind = data.partition(b"\n")
    try:
        told: dict[str, Any] = json.loads(line)
        packed, at = np.frombuffer(behind, "<i4").astype(np.int64), 0
        for _, _, sketch in _each(told):
            if "bins" in sketch:
                sketch["bins"] = packed[at : at + 2 * sketch["bins"]].reshape(2, sketch["bins"])
                at += sketch["bins"].size
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise OutputError(f"What a part's columns hold cannot be read: {error}") from error
    return told


def _each(told: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Side, str, Any]]:
    sides: tuple[Side, Side] = ("input", "output")
    for side in sides:
        for name, sketch in told[side].items():
            yield side, name, sketch


def _rounded(number: float) -> float | None:
    """To the digits that do not depend on how the rows were cut into parts; None for what is no number."""
    return float(f"{number:.10g}") if np.isfinite(number) else None
