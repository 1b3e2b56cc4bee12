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


def drawn(values: int, rows: int, random: np.random.Generator, prefix: str = "town") -> dict[str, Any]:
    """A column of so many different texts, each as frequent as the others."""
    names = np.array([f"{prefix}-{number:04d}" for number in range(values)], dtype=object)
    return {"town": names[random.integers(0, values, rows)]}


@pytest.mark.parametrize("values", [50, 100, 200, 1000])
def test_texts_of_which_there_are_many_have_not_drifted_while_their_data_stay_the_same(values: int) -> None:
    random = np.random.default_rng(values)
    sizes = [(500, 500), (500, 50_000), (2_000, 2_000), (5_000, 5_000), (50_000, 2_000)]
    found = [
        drift_of(drawn(values, before, random), drawn(values, after, random))["town"]
        for before, after in sizes
        for _ in range(10)
    ]
    assert sum(one.drifted > 0.1 for one in found) <= 1
    assert all(one.drift is not None and one.note is None for one in found), "each was compared"


@pytest.mark.parametrize("values", [2, 30, 200, 1000])
def test_texts_that_are_all_replaced_have_drifted_however_many_there_are(values: int) -> None:
    random = np.random.default_rng(values)
    before, after = drawn(values, 5_000, random), drawn(values, 5_000, random, "ville")
    assert drift_of(before, after)["town"].drifted > 0.25


@pytest.mark.parametrize("rows", [200, 20_000])
@pytest.mark.parametrize("values", [2, 5, 20])
def test_one_of_few_texts_that_becomes_frequent_is_seen(values: int, rows: int) -> None:
    random = np.random.default_rng(rows)
    before, after = drawn(values, rows, random), drawn(values, rows, random)
    assert drift_of(before, after)["town"].drifted == 0
    after["town"][random.random(rows) < 0.8] = "town-0000"
    assert drift_of(before, after)["town"].drifted > 0.25


@pytest.mark.parametrize("rows", [20, 1_000, 40_000])
@pytest.mark.parametrize("form", ["order-{:08d}", "{:x}0", "2026-{:09d}-0{}"])
def test_texts_that_are_new_in_each_job_as_numbers_of_orders_are_have_not_drifted(form: str, rows: int) -> None:
    orders = [form.format(number, number % 7) for number in range(3 * rows, 5 * rows)]
    assert drift_of({"order": orders[:rows]}, {"order": orders[rows:]})["order"].drifted == 0


def test_texts_whose_reference_has_no_buckets_cannot_be_compared() -> None:
    now = sketched(pd.DataFrame({"colour": ["red"] * 20}), [])
    before = [column.result().model_copy(update={"bucket_count": 0, "buckets": []}) for column in now.values()]
    (found,) = compared(now.values(), before)
    assert found.drift is None
    assert found.note == "has a reference of an older kind (name a newer job in quality.reference)"


def test_a_column_that_is_empty_all_at_once_is_told_by_its_missing_values() -> None:
    found = drift_of({"x": [1.0, 2.0, None, 4.0]}, {"x": [None, None, None, None]})["x"]
    assert (found.missing_before, found.missing_change, found.note) == (0.25, 0.75, "has no values")
    assert found.drift is None


@pytest.mark.parametrize(("before", "after"), [(30, 30), (1000, 30), (30, 1000), (1000, 1000)])
def test_an_unchanged_share_of_missing_values_differs_by_chance_alone(before: int, after: int) -> None:
    random = np.random.default_rng(before + after)

    def gaps(rows: int, share: float) -> dict[str, Any]:
        return {"x": np.where(random.random(rows) < share, np.nan, 1.0)}

    found = [drift_of(gaps(before, 0.1), gaps(after, 0.1))["x"] for _ in range(100)]
    assert sum((one.missing_change or 0) > 0 for one in found) > 50, "it differs all the same"
    assert sum(one.missing_changed > 0 for one in found) <= 1
    assert drift_of(gaps(before, 0.1), gaps(after, 0.8))["x"].missing_changed > 0.4


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
