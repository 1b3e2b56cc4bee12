"""From a few timed calls to the whole job, and where a sample is taken from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from batchpoint.cli.plan import finish_time, forecast_lines
from batchpoint.entities.forecasts import Forecast, Range
from batchpoint.scoring.estimate import Fit, TimedCall, Work, deadline_of, fitted, threshold_words, wilson
from batchpoint.scoring.mini_batches import InputFile, MiniBatch, Slice
from batchpoint.scoring.sample import LEAST_PIECES, Sizes, cells_of, cut_out, spread
from batchpoint.scoring.spec import SampleSpec


def work(*, items: int = 100_000, mini_batches: int = 100, startup: float = 1.0, planning: float = 0.1) -> Work:
    fit = Fit(fixed=0.01, per_item=0.001, deviation=0.0)
    return Work(items, mini_batches, startup, planning, 0.5, fit, 20)


@pytest.mark.parametrize(
    ("failed", "tried", "low", "high"),
    # What R's binom::binom.wilson says.
    [(0, 10, 0.0, 0.2775328), (5, 10, 0.2365931, 0.7634069), (10, 10, 0.7224672, 1.0), (1, 100, 0.0017674, 0.0544862)],
)
def test_the_interval_of_a_failure_rate_is_wilsons(failed: int, tried: int, low: float, high: float) -> None:
    found = wilson(failed, tried)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    assert found.estimate == failed / tried


def test_nothing_tried_tells_nothing() -> None:
    assert wilson(0, 0) == Range(estimate=0.0, low=0.0, high=1.0)


def test_calls_of_different_sizes_tell_what_a_call_costs_and_what_an_item_does() -> None:
    found = fitted([TimedCall(items, 0.02 + items * 0.003) for items in (1, 4, 16, 64, 256)])
    assert found.fixed == pytest.approx(0.02)
    assert found.per_item == pytest.approx(0.003)
    assert found.deviation == pytest.approx(0, abs=1e-9)


def test_calls_of_one_size_are_taken_as_cost_of_their_items() -> None:
    found = fitted([TimedCall(10, 1.0), TimedCall(10, 1.2)])
    assert found.call(10) == pytest.approx(1.1, rel=0.02)
    assert found.call(20) == pytest.approx(2.2, rel=0.02)
    assert fitted([]).call(5) == 0


def test_only_the_calls_become_shorter_with_more_workers() -> None:
    one, four, many = (work().seconds(workers) for workers in (1, 4, 1000))
    assert one.estimate == pytest.approx(1 + 101 + 0.5)
    assert four.estimate == pytest.approx(1 + 101 / 4 + 0.5, rel=0.03)
    assert many.estimate == pytest.approx(work().seconds(100).estimate), "there are no more mini-batches than 100"
    assert work(planning=60).seconds(1000).estimate == pytest.approx(61.5), "planning is waited for"
    assert one.low < one.estimate < one.high


def test_a_deadline_is_judged_by_the_upper_estimate_and_told_how_many_workers_would_do() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    late = deadline_of(work(), 1, now + timedelta(seconds=110), now)
    assert late.is_late
    assert late.workers_needed is not None
    assert work().seconds(late.workers_needed).high <= 110 < work().seconds(late.workers_needed - 1).high
    assert not deadline_of(
        work(), late.workers_needed, (now + timedelta(seconds=110)).replace(tzinfo=None), now
    ).is_late
    assert deadline_of(work(), 1, now + timedelta(seconds=1), now).workers_needed is None


def test_a_threshold_is_named_when_it_would_be_exceeded_and_when_it_might_be() -> None:
    limits = {"items": 1000, "mini_batches": 100, "item_limit": 20, "mini_batch_limit": -1, "percent_limit": 100.0}
    assert threshold_words(Range(estimate=0.05, low=0.03, high=0.08), **limits) == [
        "error_threshold 20 would be exceeded: about 50 of 1,000 items would fail."
    ]
    assert threshold_words(Range(estimate=0.01, low=0.005, high=0.03), **limits) == [
        "error_threshold 20 might be exceeded: 5 to 30 of 1,000 items would fail."
    ]
    assert threshold_words(Range(estimate=0, low=0, high=0.001), **limits) == []
    spread_out = limits | {"item_limit": -1, "percent_limit": 10.0}
    (words,) = threshold_words(Range(estimate=0.05, low=0.03, high=0.08), **spread_out)
    assert words == "allowed_failed_percent 10 would be exceeded: about 40 of 100 mini-batches would fail."


# ── where the sample comes from ──


def plan_of(*rows: int) -> list[MiniBatch]:
    """A mini-batch for each number of rows, each of a file of its own."""
    found = []
    for index, count in enumerate(rows):
        file = InputFile(f"{index}.parquet", f"/in/{index}.parquet", 1000)
        found.append(MiniBatch(index, "rows", slices=(Slice(file, "parquet", 0, 100, 0, count),)))
    return found


def test_every_beginning_of_the_sample_lies_evenly_over_files_and_rows() -> None:
    cells = list(spread(cells_of(plan_of(*[1000] * 100))))
    assert len({cell.mini_batch.index for cell in cells}) == 100
    for number in (10, 20, 40):
        places = sorted(cell.mini_batch.index for cell in cells[:number])
        gaps = [after - before for before, after in zip([-1, *places], [*places, 100], strict=True)]
        assert max(gaps) <= 3 * 100 / number


def test_a_small_input_is_sampled_at_many_places_within_its_files() -> None:
    cells = cells_of(plan_of(640))
    assert len(cells) == 64
    assert sorted((cell.start, cell.stop) for cell in spread(cells)) == [(at, at + 10) for at in range(0, 640, 10)]
    assert [cell.stop - cell.start for cell in cells_of(plan_of(3))] == [1, 1, 1]


def test_a_piece_names_the_rows_that_it_is_cut_from() -> None:
    (cell,) = (cell for cell in cells_of(plan_of(640)) if cell.start == 320)
    piece = cut_out(cell, 4, 7, spec=None)  # type: ignore[arg-type]  # only csv and jsonl look at it
    assert (piece.index, piece.items, piece.slices[0].first_row) == (7, 4, 320)
    assert cut_out(cell, 99, 7, spec=None).items == 10  # type: ignore[arg-type]  # the same


def test_what_shares_a_key_is_never_divided() -> None:
    keyed = MiniBatch(0, "rows", slices=plan_of(640)[0].slices, partition=(("k", 1),))
    (cell,) = cells_of([keyed])
    assert cut_out(cell, 4, 0, spec=None).items == 640  # type: ignore[arg-type]  # only csv and jsonl look at it


def test_pieces_grow_while_they_are_quick_and_stop_when_time_is_spent() -> None:
    sizes = Sizes(SampleSpec(), workers=1)
    found = [sizes.next(0, 0, 0.0, None)]
    for index in range(1, 8):
        found.append(sizes.next(index, 0, 0.0, TimedCall(max(found), 0.001)))
    assert found[0] == 1
    assert max(found) == 4**5, "every third is smaller"
    assert sizes.next(9, 0, 3.1, TimedCall(10, 0.001)) == 0


def test_a_slow_model_is_sampled_item_by_item_and_at_several_places_all_the_same() -> None:
    sizes = Sizes(SampleSpec(), workers=1)
    assert [sizes.next(index, 0, 100.0, TimedCall(1, 10.0)) for index in range(LEAST_PIECES)] == [1] * LEAST_PIECES
    assert sizes.next(LEAST_PIECES, 0, 100.0, TimedCall(1, 10.0)) == 0


def test_no_more_rows_are_sampled_than_asked_for() -> None:
    sizes, taken, index = Sizes(SampleSpec(rows=100), workers=2), 0, 0
    while size := sizes.next(index, taken, 0.0, TimedCall(1000, 0.0001)):
        taken, index = taken + size, index + 1
    assert taken == 100
    assert index >= LEAST_PIECES


def test_a_time_of_day_is_the_next_one_and_a_date_is_taken_as_it_stands() -> None:
    now = datetime(2026, 5, 1, 22, 30, tzinfo=UTC)
    assert finish_time("06:00", now) == datetime(2026, 5, 2, 6, tzinfo=UTC)
    assert finish_time("23:00", now) == datetime(2026, 5, 1, 23, tzinfo=UTC)
    assert finish_time("2026-05-03T04:00", now) == datetime(2026, 5, 3, 4, tzinfo=UTC)
    assert finish_time("2026-05-03T04:00+02:00", now) == datetime(2026, 5, 3, 2, tzinfo=UTC)


def test_a_forecast_says_when_nothing_of_the_sample_was_scored() -> None:
    counts = {"items": 4, "bytes": 29, "mini_batches": 1, "sampled_items": 4, "sampled_files": 1, "failed_items": 4}
    spans = {"failure_rate": {"estimate": 1, "low": 0.5, "high": 1}, "seconds": {"estimate": 1, "low": 1, "high": 2}}
    told = {"job": "j", "unit": "rows", "items_are_exact": True, "items_how": "counted", "workers": 1}
    lines = forecast_lines(Forecast.model_validate({**told, **counts, **spans, "startup_seconds": 1}))

    assert lines[0] == "Input       4 rows (29 B), 1 mini-batch"
    assert lines[2] == "Time        1.0 s (1.0 s to 2.0 s) with 1 worker; start-up 1.0 s"
    assert lines[5] == "Output      unknown: no row of the sample was scored"
