"""Sketches of parts, added up, against what numpy says of the whole."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchpoint.errors import OutputError
from batchpoint.scoring.profile import Column, read
from batchpoint.scoring.results import tabulate
from batchpoint.scoring.sketches import SAMPLE, Sketcher


def sketched(frame: Any, cuts: list[int]) -> dict[str, Column]:
    """The columns of a table that is scored in parts which end at these rows."""
    columns: dict[str, Column] = {}
    sketcher = Sketcher(tabulate)
    for start, stop in zip([0, *cuts], [*cuts, len(frame)], strict=True):
        sketcher.take(frame.iloc[start:stop])
        for name, sketch in read(sketcher.told([]))["input"].items():
            columns.setdefault(name, Column("input", name)).add(sketch)
    return columns


def of_result(result: Any) -> dict[str, Any]:
    """The sketch of each column of one result."""
    found: dict[str, Any] = read(Sketcher(tabulate).told(result) or b'{"input": {}, "output": {}}\n')["output"]
    return found


def test_counts_extremes_mean_and_deviation_are_those_of_all_rows_however_they_are_cut() -> None:
    random = np.random.default_rng(7)
    values = random.lognormal(3, 2, 40_000) - 20
    values[::13] = np.nan
    values[5], values[7] = np.inf, -np.inf
    finite = values[np.isfinite(values)]
    for cuts in ([], [20_000], [1, 2, 3, 4_000, 39_999]):
        found = sketched(pd.DataFrame({"x": values}), cuts)["x"].result()
        assert (found.kind, found.rows, found.infinite) == ("numbers", 40_000, 2)
        assert found.missing == int(np.isnan(values).sum())
        assert (found.least, found.most) == (finite.min(), finite.max())
        assert found.mean == pytest.approx(finite.mean(), rel=1e-9)
        assert found.deviation == pytest.approx(finite.std(), rel=1e-9)


def test_quantiles_lie_where_they_are_in_the_whole() -> None:
    values = np.random.default_rng(1).normal(50, 10, 200_000)
    found = sketched(pd.DataFrame({"x": values}), list(range(10_000, 200_000, 10_000)))["x"].result()
    for name, share in (("p05", 0.05), ("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p95", 0.95)):
        below = (values <= found.quantiles[name]).mean()
        assert below == pytest.approx(share, abs=0.02), name
    assert sum(found.shares) == pytest.approx(1)


def test_values_that_lie_far_from_zero_and_close_together_are_told_apart() -> None:
    early, late = pd.DataFrame({"year": [2009] * 600}), pd.DataFrame({"year": [2015] * 600})
    columns = [sketched(frame, [300])["year"] for frame in (early, late)]
    assert columns[0].result().quantiles["p50"] == 2009
    assert columns[1].histogram.shares(np.array(columns[0].result().cuts))[-1] == 1


def test_frequent_texts_and_truth_values_are_counted_and_what_is_missing_too() -> None:
    texts = ["a"] * 300 + ["b"] * 100 + [None] * 50 + ["c"]
    frame = pd.DataFrame({"text": texts, "truth": [True, False, None] * 150 + [True]})
    found = {name: column.result() for name, column in sketched(frame, [200]).items()}
    assert {one.value: one.rows for one in found["text"].top} == Counter({"a": 300, "b": 100, "c": 1})
    assert (found["text"].kind, found["text"].missing, found["text"].distinct) == ("texts", 50, 3)
    assert {one.value: one.rows for one in found["truth"].top} == {"True": 151, "False": 150}
    assert (found["truth"].kind, found["truth"].missing) == ("truths", 150)


def test_the_buckets_of_texts_add_up_however_they_are_cut() -> None:
    texts = pd.DataFrame({"t": [f"text-{number % 37 % 11}" for number in range(400)]})
    found = [sketched(texts, cuts)["t"].result() for cuts in ([], [100, 300])]
    assert found[0] == found[1]
    assert (found[0].bucket_count, len(found[0].buckets)) == (4096, 11)
    counts = sorted(texts["t"].value_counts().tolist())
    assert sorted(round(share * 400) for share in found[0].shares) == counts
    assert found[0].looked_at == 400


def test_a_profile_of_many_different_texts_has_fewer_and_larger_buckets() -> None:
    found = sketched(pd.DataFrame({"id": [f"id-{number}" for number in range(20_000)]}), list(range(400, 20_000, 400)))
    profile = found["id"].result()
    assert profile.bucket_count == len(profile.buckets) == 256
    assert sum(profile.shares) == pytest.approx(1)


def test_many_different_texts_are_estimated() -> None:
    frame = pd.DataFrame({"id": [f"id-{number}" for number in range(20_000)]})
    found = sketched(frame, list(range(400, 20_000, 400)))["id"].result()
    assert found.distinct == pytest.approx(20_000, rel=0.3)
    assert len(found.top) == 20


def test_a_column_may_begin_with_parts_that_hold_nothing() -> None:
    frame = pd.DataFrame({"x": pd.Series([None] * 10 + [1.5] * 10, dtype=object)})
    found = sketched(frame, [10])["x"].result()
    assert (found.kind, found.rows, found.missing, found.mean) == ("numbers", 20, 10, 1.5)


def test_a_column_of_different_kinds_is_only_counted() -> None:
    frame = pd.DataFrame({"x": pd.Series(["a"] * 10 + [1.5] * 10, dtype=object)})
    found = sketched(frame, [10])["x"].result()
    assert (found.kind, found.rows, found.missing, found.mean) == ("others", 20, 0, None)


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ([1, 2.5, None], "numbers"),
        (np.array([1, 2]), "numbers"),
        (["x", "y"], "texts"),
        (pd.Series([1, None], dtype="Int64"), "numbers"),
        (pd.Series(["a", None], dtype="string"), "texts"),
        (pd.Series(["a", "b"], dtype="category"), "texts"),
        (pd.Series([True, None], dtype="boolean"), "truths"),
        (pd.Series(pd.to_datetime(["2020-01-01"])), "others"),
        (pa.table({"prediction": pa.array([1, None])}), "numbers"),
        (pa.table({"prediction": pa.array(["a", None])}), "texts"),
        (pa.table({"prediction": pa.array([True, None])}), "truths"),
        ([[1, 2], [3, 4, 5]], "others"),
        (list(np.array(["a", "b"])), "texts"),
        (list(np.array([True, False])), "truths"),
        (list(np.array([1, 2])), "numbers"),
        ([np.float32(1), 2, None], "numbers"),
        (list(np.array(["2020-01-01"], "M8[D]")), "others"),
        (list(np.array([5], "m8[D]")), "others"),
        (pd.DataFrame({"prediction": pd.Series([np.str_("a"), None], dtype=object)}), "texts"),
    ],
)
def test_results_of_every_form_are_sketched(result: Any, kind: str) -> None:
    assert [sketch["kind"] for sketch in of_result(result).values()] == [kind]


def test_a_sketch_stays_small_however_many_rows_it_stands_for() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=100_000), "t": random.integers(0, 10**9, 100_000).astype(str)})
    sketcher = Sketcher(tabulate)
    sketcher.take(frame)
    assert len(sketcher.told([])) < 20_000


def test_what_cannot_be_looked_at_costs_nothing() -> None:
    class Odd:
        def __str__(self) -> str:
            raise ValueError

    assert of_result([Odd(), Odd()])["prediction"]["kind"] == "others"
    assert of_result(3) == {}


@pytest.mark.parametrize(
    "values", [[1.5] * SAMPLE + [1e9, "oops"], [10**400, 2]], ids=["a text behind the sample", "a number too large"]
)
def test_a_column_that_cannot_be_looked_at_says_so(values: list[object]) -> None:
    found = of_result(pd.DataFrame({"prediction": pd.Series(values, dtype=object), "other": 1}))
    assert found["prediction"] == {"kind": "unseen", "rows": len(values)}
    assert found["other"]["kind"] == "numbers", "the others are looked at all the same"


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b'{"input": {"x": {"bins": 2}}, "output": {}}\n1234', b"[]\n", b'{"input": {}}\n']
)
def test_what_is_no_sketch_is_refused_by_name(damaged: bytes) -> None:
    with pytest.raises(OutputError, match="cannot be read"):
        read(damaged)
