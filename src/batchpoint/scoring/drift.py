"""Two profiles of a column → how far it has drifted. Pure.

Drift is the population stability index: of numbers over the tenths of the reference, of texts over the buckets that
their hashes sort them into. Frequent texts would have to be chosen, and what was most frequent in one sample is less so
in the next; buckets need no choice. A sample of few rows differs from another one of the same data too: ``chance`` says
by how much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchpoint.entities.quality import ColumnProfile, ColumnQuality
from batchpoint.scoring.comparison import stability_index
from batchpoint.scoring.profile import Column, folded

Floats = NDArray[np.float64]

RARE = 3.09
"""Standard deviations that chance exceeds once in 1,000 times."""
MUCH = 0.25
"""A drift that is much: texts are compared in so few buckets that chance alone stays below it."""
LEAST_BUCKETS = 16
"""Used buckets of texts that are not made fewer."""


def compared(columns: Iterable[Column], before: Iterable[ColumnProfile] | None) -> list[ColumnQuality]:
    """Each column with its drift; those that are gone at the end. None of ``before``: nothing is compared."""
    if before is None:
        return [_quality(column.result()) for column in columns]
    known = {(profile.side, profile.name): profile for profile in before}
    found = [_compared(column, known.pop((column.side, column.name), None)) for column in columns]
    gone = [
        ColumnQuality(side=profile.side, name=profile.name, kind=profile.kind, rows=0, missing=0, note="is gone")
        for profile in known.values()
    ]
    return found + gone


def _compared(column: Column, before: ColumnProfile | None) -> ColumnQuality:
    now = column.result()
    if before is None:
        return _quality(now, note="is new")
    told: dict[str, Any] = {
        "missing_before": before.missing_share,
        "missing_change": abs(now.missing_share - before.missing_share),
        "missing_chance": chance_of_missing(before, now),
    }
    if now.missing == now.rows and before.missing < before.rows:
        return _quality(now, **told, note="has no values")
    if now.kind != before.kind:
        return _quality(now, **told, note=f"holds {now.kind}, and held {before.kind}")
    if now.kind == "texts" and not before.bucket_count:
        return _quality(now, **told, note="has a reference of an older kind (name a newer job in quality.reference)")
    shares = _shares(column, now, before)
    if shares is None:
        return _quality(now, **told)
    used = _used(shares)
    rows = _rows(before, now)
    drift = stability_index(_softened(shares[0][used], rows[0]), _softened(shares[1][used], rows[1]))
    return _quality(now, **told, drift=drift, chance=chance(int(used.sum()), *rows))


def chance(bins: int, before: int, after: int) -> float:
    """What the index of two samples of so many rows, of the same data, exceeds once in 1,000 times.

    It is then ``1/before + 1/after`` times a chi-square of ``bins - 1`` degrees of freedom, whose quantile is Wilson
    and Hilferty's. Source: B. Yurdakul, Statistical Properties of Population Stability Index (2018).
    """
    degrees = bins - 1
    if degrees < 1 or not before or not after:
        return 0.0
    quantile = degrees * (1 - 2 / (9 * degrees) + RARE * (2 / (9 * degrees)) ** 0.5) ** 3
    return float(quantile * (1 / before + 1 / after))


def chance_of_missing(before: ColumnProfile, now: ColumnProfile) -> float:
    """What the shares of missing values of two samples of the same data differ by at most twice in 1,000 times.

    Standard deviations of the difference of two shares that are one, and half a row more of each: values are missing
    by whole rows.
    """
    if not before.rows or not now.rows:
        return 0.0
    share = (before.missing + now.missing) / (before.rows + now.rows)
    each = 1 / before.rows + 1 / now.rows
    return float(RARE * (share * (1 - share) * each) ** 0.5 + each / 2)


def _shares(column: Column, now: ColumnProfile, before: ColumnProfile) -> tuple[Floats, Floats] | None:
    """The shares of both over the same intervals, buckets or truths; None where there is nothing to compare."""
    if now.kind == "numbers":
        shares = (
            column.histogram.shares(np.array(before.cuts, np.int64)) if now.cuts else np.zeros(len(before.cuts) + 1)
        )
        return _of_numbers(before.shares or [0.0], before), _of_numbers(shares, now)
    if now.kind == "truths":
        return _of_truths(before), _of_truths(now)
    if now.kind == "texts" and before.looked_at and now.looked_at:
        return _of_texts(before, now)
    return None


def _of_numbers(finite: Sequence[float] | Floats, profile: ColumnProfile) -> Floats:
    """The share in each interval, and of infinite numbers."""
    infinite = profile.infinite / max(profile.rows - profile.missing, 1)
    return np.append(np.array(finite) * (1 - infinite), infinite)


def _of_truths(profile: ColumnProfile) -> Floats:
    """The share of each."""
    counts = {one.value: one.rows for one in profile.top}
    return np.array([counts.get(name, 0) for name in ("False", "True")]) / max(profile.rows - profile.missing, 1)


def _of_texts(before: ColumnProfile, now: ColumnProfile) -> tuple[Floats, Floats]:
    """The shares of buckets: of many for many rows, of few for few, as a drift that is much has to exceed chance."""
    shares, rows = [_of_buckets(before), _of_buckets(now)], _rows(before, now)
    while len(shares[0]) != len(shares[1]):
        shares = [folded(one) if len(one) > min(map(len, shares)) else one for one in shares]
    while (used := int(_used(shares).sum())) > LEAST_BUCKETS and chance(used, *rows) > MUCH:
        shares = [folded(one) for one in shares]
    return shares[0], shares[1]


def _of_buckets(profile: ColumnProfile) -> Floats:
    """The share of each bucket, whether any text fell into it or not."""
    shares = np.zeros(profile.bucket_count)
    shares[profile.buckets] = profile.shares
    return shares


def _used(shares: Sequence[Floats]) -> NDArray[np.bool_]:
    """Where either has a share."""
    return (shares[0] > 0) | (shares[1] > 0)


def _rows(before: ColumnProfile, now: ColumnProfile) -> tuple[int, int]:
    """The rows of both that their shares are told from."""
    return before.looked_at or before.infinite, now.looked_at or now.infinite


def _softened(shares: Floats, rows: int) -> Floats:
    """The shares with half a row more in each: what none of few rows fell into is not impossible."""
    return (shares * rows + 0.5) / (rows + 0.5 * len(shares))


def _quality(profile: ColumnProfile, **told: Any) -> ColumnQuality:
    return ColumnQuality(**profile.model_dump(), **told)
