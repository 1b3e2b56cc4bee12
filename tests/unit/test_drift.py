"""How far columns drift: the index that numpy computes from the whole, and what chance alone brings about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from batchpoint.entities.quality import ColumnQuality, Quality, summary
from batchpoint.scoring.drift import compared
from unit.test_sketches import sketched


def drift_of(before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]]) -> dict[str, ColumnQuality]:
    """The columns of ``after``, compared with those of ``before``; both are scored in parts of 500 rows."""
    columns = []
    for table in (before, after):
        frame = pd.DataFrame(table)
        columns.append(sketched(frame, list(range(500, len(frame), 500))))
    known = [column.result() for column in columns[0].values()]
    return {found.name: found for found in compared(columns[1].values(), known)}


def index_over_tenths(before: Any, after: Any) -> float:
    """The population stability index by its definition."""
    edges = np.quantile(before, np.arange(0.1, 0.95, 0.1))
    shares = [np.bincount(np.searchsorted(edges, values), minlength=10) / len(values) for values in (before, after)]
    return float(sum((q - p) * np.log(q / p) for p, q in zip(*shares, strict=True)))


@pytest.mark.parametrize("shift", [0.1, 0.5, 1.0])
def test_the_drift_of_numbers_is_the_stability_index_over_the_tenths_of_the_reference(shift: float) -> None:
    random = np.random.default_rng(3)
    before, after = random.normal(10, 1, 50_000), random.normal(10 + shift, 1, 50_000)
    found = drift_of({"x": before}, {"x": after})["x"]
    assert found.drift == pytest.approx(index_over_tenths(before, after), rel=0.1, abs=0.003)
    assert found.drifted == found.drift, "it is more than chance"


def test_few_rows_that_differ_by_chance_have_not_drifted() -> None:
    random = np.random.default_rng(11)
    before = random.normal(0, 1, 5_000)
    found = [drift_of({"x": before}, {"x": random.normal(0, 1, 40)})["x"] for _ in range(60)]
    assert max(one.drift or 0 for one in found) > 0.25, "which many would call much"
    assert sum(one.drifted > 0 for one in found) <= 2
    assert drift_of({"x": before}, {"x": random.normal(3, 1, 40)})["x"].drifted > 0.25


def test_texts_drift_when_others_become_frequent() -> None:
    before = {"colour": ["red"] * 700 + ["blue"] * 300}
    assert drift_of(before, {"colour": ["blue"] * 600 + ["red"] * 1400})["colour"].drifted == 0
    assert drift_of(before, {"colour": ["red"] * 300 + ["blue"] * 700})["colour"].drifted > 0.25
    assert drift_of(before, {"colour": ["red"] * 300 + ["green"] * 700})["colour"].drifted > 1
    assert drift_of({"on": [True] * 500 + [False] * 500}, {"on": [True] * 990 + [False] * 10})["on"].drifted > 0.25


def test_a_column_that_is_empty_all_at_once_is_told_by_its_missing_values() -> None:
    found = drift_of({"x": [1.0, 2.0, None, 4.0]}, {"x": [None, None, None, None]})["x"]
    assert (found.missing_before, found.missing_change, found.note) == (0.25, 0.75, "has no values")
    assert found.drift is None


def test_numbers_that_become_infinite_have_drifted() -> None:
    plain, part = [1.0, 2.0] * 500, [1.0, 2.0] * 250 + [float("inf")] * 500
    whole = [float("inf")] * 1000
    for before, after in ((plain, part), (plain, whole), (part, whole), (whole, plain)):
        assert drift_of({"x": before}, {"x": after})["x"].drifted > 0.5
    assert drift_of({"x": part}, {"x": part})["x"].drifted == 0
    assert drift_of({"x": whole}, {"x": whole})["x"].drifted == 0


def test_columns_that_cannot_be_compared_say_why() -> None:
    found = drift_of({"a": [1, 2], "b": [1, 2]}, {"b": ["x", "y"], "c": [1, 2]})
    notes = {name: column.note for name, column in found.items()}
    assert notes == {"b": "holds texts, and held numbers", "c": "is new", "a": "is gone"}


def test_the_summary_names_the_columns_that_changed_most() -> None:
    before = {"x": [1.0] * 1000, "y": [1.0] * 1000}
    columns = drift_of(before, {"x": [2.0] * 1000, "y": [1.0] * 500 + [None] * 500})
    told = summary(Quality(job="now", reference="then", items=1000, columns=list(columns.values())))
    assert (told.drift_column, told.missing_column, told.missing_change) == ("input x", "input y", 0.5)
    assert (told.drift or 0) > 1
    assert summary(Quality(job="now", items=1, columns=list(columns.values()))).drift is None
