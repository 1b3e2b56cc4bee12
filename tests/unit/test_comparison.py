"""The mathematics of a comparison, against what numpy says about all rows at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from batchpoint.cli.comparisons import comparison_lines
from batchpoint.entities.comparisons import Comparison
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, EndpointDefaults
from batchpoint.entities.jobs import Job
from batchpoint.errors import ConflictError, NotFoundError
from batchpoint.operations.promotion import check_speaks_for, newest_comparing
from batchpoint.scoring.challenge import Challenge, Refusal, Rows, read_challenge
from batchpoint.scoring.comparison import Histogram, PairedColumn, paired, paired_columns, stability_index
from batchpoint.scoring.mini_batches import ErrorInfo


def keys(first: int, count: int) -> pa.Table:
    return pa.table({"file": ["a.csv"] * count, "row": range(first, first + count)})


def compared(column: PairedColumn, champion: pa.Array, challenger: pa.Array, *, batch: int) -> PairedColumn:
    for first in range(0, len(champion), batch):
        size = min(batch, len(champion) - first)
        column.add(keys(first, size), champion.slice(first, size), challenger.slice(first, size))
    return column


@pytest.mark.parametrize("batch", [7, 1000, 50_000])
def test_numbers_compare_as_numpy_says_however_they_are_cut(batch: int) -> None:
    random = np.random.default_rng(1)
    x = random.normal(50, 20, 5000)
    y = np.where(random.random(5000) < 0.3, x, x + random.normal(1, 3, 5000))
    column = PairedColumn("p", "p", numeric=True, countable=False)
    found = compared(column, pa.array(x), pa.array(y), batch=batch).result()
    sizes, relative = np.abs(y - x), np.abs(y - x) / np.abs(x)
    assert found.agreement == pytest.approx(np.mean(sizes <= 1e-6 * np.maximum(np.abs(x), np.abs(y))))
    assert found.absolute is not None
    assert found.relative is not None
    assert found.absolute.mean == pytest.approx(sizes.mean())
    assert found.absolute.median == pytest.approx(np.median(sizes), rel=2e-3)
    assert found.absolute.largest == sizes.max()
    assert found.relative.mean == pytest.approx(relative.mean())
    assert found.correlation == pytest.approx(np.corrcoef(x, y)[0, 1])
    largest = np.argsort(-sizes, kind="stable")[:20]
    assert [mover.row for mover in found.movers] == largest.tolist()
    assert found.movers[0].difference == pytest.approx((y - x)[largest[0]])


def test_the_stability_index_is_that_of_the_champions_deciles() -> None:
    random = np.random.default_rng(2)
    x, y = random.normal(0, 1, 20_000), random.normal(0.5, 1, 20_000)
    edges = np.quantile(x, np.arange(0.1, 0.95, 0.1))
    p, q = (np.histogram(each, [-np.inf, *edges, np.inf])[0] / 20_000 for each in (x, y))
    column = compared(
        PairedColumn("p", "p", numeric=True, countable=False), pa.array(x), pa.array(y), batch=3000
    ).result()
    assert column.psi == pytest.approx(stability_index(p, q), rel=0.02)
    assert stability_index(p, p) == 0


def test_a_champion_that_never_varies_has_no_correlation_and_any_change_shows_in_the_index() -> None:
    column = PairedColumn("p", "p", numeric=True, countable=False)
    found = compared(column, pa.array([1.0] * 100), pa.array([1.0] * 50 + [0.5] * 50), batch=10).result()
    assert found.correlation is None
    assert found.agreement == 0.5
    assert found.psi is not None
    assert found.psi > 1


def test_classes_have_a_confusion_and_texts_of_many_kinds_have_none() -> None:
    champion, challenger = pa.array(["cat", "cat", "dog", None]), pa.array(["cat", "dog", "dog", "dog"])
    column = compared(PairedColumn("c", "c", numeric=False, countable=True), champion, challenger, batch=2).result()
    assert (column.kind, column.agreement, column.missing_champion) == ("classes", 0.5, 1)
    assert column.confusion is not None
    assert {(one.champion, one.challenger): one.rows for one in column.confusion} == {
        ("cat", "cat"): 1,
        ("cat", "dog"): 1,
        ("dog", "dog"): 1,
        (None, "dog"): 1,
    }
    assert [(mover.row, mover.champion, mover.challenger) for mover in column.movers] == [
        (1, "cat", "dog"),
        (3, None, "dog"),
    ]
    texts = pa.array([f"text {number}" for number in range(100)])
    many = compared(PairedColumn("c", "c", numeric=False, countable=True), texts, texts, batch=50).result()
    assert (many.kind, many.agreement, many.confusion) == ("text", 1.0, None)


def test_missing_and_infinite_numbers_disagree_without_spoiling_the_means() -> None:
    champion = pa.array([1.0, None, float("nan"), float("inf"), float("inf")])
    challenger = pa.array([2.0, None, 3.0, float("inf"), 1.0])
    found = compared(PairedColumn("p", "p", numeric=True, countable=False), champion, challenger, batch=5).result()
    assert found.agreement == pytest.approx(2 / 5)
    assert (found.missing_champion, found.missing_challenger) == (1, 0)
    assert found.absolute is not None
    assert (found.absolute.mean, found.absolute.largest) == (1.0, 1.0)


def test_rows_are_paired_by_their_item_whatever_their_order() -> None:
    names = (["file", "row"], ["file", "row"])
    ours = pa.table({"file": ["a", "a", "b"], "row": [0, 1, 0], "p": [1, 2, 3]})
    theirs = pa.table({"file": ["b", "a", None], "row": [0, 0, None], "p": [30, 10, 0]})
    one, other = paired(ours, theirs, names)
    assert (one["p"].to_pylist(), other["p"].to_pylist()) == ([1, 3], [10, 30])
    assert paired(ours, ours, names) == (ours, ours)


def test_single_columns_of_different_names_are_compared_with_each_other() -> None:
    names = (["file"], ["file"])
    ours = pa.schema([("file", pa.string()), ("prediction", pa.float64())])
    theirs = pa.schema([("file", pa.string()), ("score", pa.float32())])
    (column,) = paired_columns(ours, theirs, names)
    assert (column.name, column.challenger_name, column.numeric) == ("prediction", "score", True)
    wider = pa.schema([*theirs, ("other", pa.int64())])
    assert paired_columns(ours, wider, names) == []


def test_a_histogram_tells_quantiles_to_a_tenth_of_a_percent_and_merges_in_any_order() -> None:
    values = np.concatenate([-np.geomspace(1e-300, 1e300, 1000), [0.0], np.geomspace(1e-5, 10, 1000)])
    one, other = Histogram(), Histogram()
    one.add(values)
    for piece in np.array_split(values[::-1], 13):
        other.add(piece)
    assert one.keys.tolist() == other.keys.tolist()
    assert one.counts.tolist() == other.counts.tolist()
    for share in (0.1, 0.3, 0.5, 0.77):
        assert one.quantile(share) == pytest.approx(np.sort(values)[int(np.ceil(share * 2001)) - 1], rel=1e-3)


def test_what_the_ledger_keeps_of_a_challenge_reads_back_the_same() -> None:
    rows = Rows("0001-00001.values.rows", 5, 7, 2, "arrow", ("file", "p"))
    refusal = Refusal(3, 4, "a.csv", 3, ErrorInfo("ValueError", "bad"))
    challenge = Challenge(4, (rows,), (rows,), (rows,), (refusal,), 1, 0.25, 0.5, "off")
    assert read_challenge(challenge.as_json()) == challenge
    assert read_challenge(Challenge(0).as_json()) == Challenge(0)
    assert {each.segment for each in challenge.located("/old").all_rows()} == {"/old/segments/0001-00001.values.rows"}


# ── promotion ──


def compared_job(*, agreement: float = 0.9, model: str = "m:1") -> tuple[Job, Comparison]:
    green = BatchDeployment(name="green", endpoint_name="churn", model=model)
    blue = BatchDeployment(name="blue", endpoint_name="churn", model="m:0")
    job = Job(name="j", endpoint_name="churn", deployment_name="blue", deployment=blue, challenger=green)
    comparison = Comparison(
        job="j",
        champion="blue",
        challenger="green",
        unit="rows",
        items=10,
        items_asked=10,
        champion_failed=0,
        challenger_failed=0,
        rows_compared=10,
        agreement=1.0,
        agreement_of_all=agreement,
    )
    return job, comparison


def test_a_comparison_speaks_for_the_deployment_that_it_compared_with_the_present_default() -> None:
    endpoint = BatchEndpoint(name="churn", defaults=EndpointDefaults(deployment_name="blue"))
    green = BatchDeployment(name="green", endpoint_name="churn", model="m:1")
    job, comparison = compared_job()
    blue = job.deployment
    check_speaks_for(job, comparison, endpoint, green, 0.9, champion=blue)
    with pytest.raises(ConflictError, match=r"90.00% of its 10 results.*asked for were 95.00%"):
        check_speaks_for(job, comparison, endpoint, green, 0.95, champion=blue)
    with pytest.raises(ConflictError, match="green has changed since"):
        check_speaks_for(job, comparison, endpoint, green.model_copy(update={"model": "m:2"}), None, champion=blue)
    newer = green.model_copy(update={"name": "blue", "model": "m:3"})
    with pytest.raises(ConflictError, match="blue has changed since"):
        check_speaks_for(job, comparison, endpoint, green, None, champion=newer)
    moved = endpoint.model_copy(update={"defaults": EndpointDefaults(deployment_name="red")})
    with pytest.raises(ConflictError, match="compared green with blue"):
        check_speaks_for(job, comparison, moved, green, None, champion=None)
    assert newest_comparing([Job(name="x"), job], "green", "blue") is job
    with pytest.raises(NotFoundError, match="Invoke the endpoint with red as the challenger first") as missing:
        newest_comparing([job], "red", "blue")
    assert "--challenger red" in missing.value.details["on_command_line"]


def test_a_person_reads_agreement_and_failures_first() -> None:
    lines = comparison_lines(compared_job()[1])
    assert lines[0] == "Champion blue, challenger green"
    assert "100.00% of those compared, 90.00% of all" in lines[2]
