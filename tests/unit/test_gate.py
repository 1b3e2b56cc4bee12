"""The checks of a run's quality, and which mini-batches go first."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from pydantic import ValidationError

from batchpoint.entities.endpoints import BatchDeployment, ScoringOptions
from batchpoint.entities.jobs import Overrides
from batchpoint.entities.quality import ColumnQuality, QualityOptions
from batchpoint.entities.resources import Compute
from batchpoint.operations.invoking import effective_deployment
from batchpoint.scoring.canary import CanaryPlan
from batchpoint.scoring.gate import failed_checks


def numbers(side: str = "input", **facts: object) -> ColumnQuality:
    """A column of numbers named x."""
    given = {"name": "x", "kind": "numbers", "rows": 10, "missing": 0, "least": 0, "most": 9, **facts}
    return ColumnQuality.model_validate({"side": side, **given})


def messages(options: QualityOptions, *columns: ColumnQuality, items: int = 10, failed: int = 0) -> list[str]:
    return [check.message for check in failed_checks(options, columns, items=items, failed=failed)]


def test_a_check_that_fails_names_column_figure_and_limit() -> None:
    drifted = numbers(drift=0.75, chance=0.1)
    assert messages(QualityOptions(max_drift=0.25), drifted) == [
        "input column x has drifted by 0.75; the limit is 0.25"
    ]
    (check,) = failed_checks(QualityOptions(max_drift=0.25), [drifted], items=10, failed=0)
    assert (check.check, check.side, check.column, check.found, check.limit) == ("max_drift", "input", "x", 0.75, 0.25)
    gaps = numbers(missing=5, missing_before=0.1, missing_change=0.4)
    assert messages(QualityOptions(max_missing_change=0.2), gaps) == [
        "input column x: 50.00% of it is missing, before 10.00%, a change of 0.4; the limit is 0.2"
    ]
    assert messages(QualityOptions(max_failure_rate=0.1), items=1000, failed=101) == [
        "10.10% of the items failed (101 of 1,000); the limit is 10.00%"
    ]
    within = QualityOptions.model_validate({"output_ranges": {"x": {"least": 1, "most": 5}}})
    assert messages(within, numbers("output")) == [
        "output column x goes down to 0; the limit is 1",
        "output column x goes up to 9; the limit is 5",
    ]
    nothing = "output column x should be numbers within a range, and there is none"
    assert messages(within) == [nothing]
    assert messages(within, numbers("output", rows=0, least=None, most=None, note="is gone")) == [nothing]
    texts = numbers("output", kind="texts", least=None, most=None)
    assert messages(within, texts) == ["output column x should be numbers within a range, and it holds texts"]


def test_what_is_within_its_limits_passes() -> None:
    options = QualityOptions.model_validate(
        {"max_drift": 0.75, "max_missing_change": 0.4, "max_failure_rate": 0.1, "output_ranges": {"x": {"most": 9}}}
    )
    assert messages(options, numbers("output", drift=0.75, missing_change=0.4), failed=1) == []


def test_a_drift_that_chance_explains_passes_and_a_column_that_cannot_be_compared_does_not() -> None:
    options = QualityOptions(max_drift=0.25)
    assert messages(options, numbers(drift=0.75, chance=0.9)) == []
    assert messages(options, numbers(note="is new")) == []
    assert messages(options, numbers(note="is gone")) == [
        "input column x is gone, and cannot be compared; the limit of drift is 0.25"
    ]


def test_a_column_that_is_gone_passes_neither_check_of_changes() -> None:
    gone = numbers(rows=0, note="is gone")
    assert messages(QualityOptions(max_missing_change=0.05), gone) == [
        "input column x is gone: nothing of it is there; the limit of a change of missing values is 0.05"
    ]
    options = QualityOptions(max_drift=0.25, max_missing_change=0.05)
    assert [check.check for check in failed_checks(options, [gone], items=10, failed=0)] == [
        "max_drift",
        "max_missing_change",
    ]
    ignored = options.model_copy(update={"ignored_columns": ["x"]})
    assert messages(ignored, gone) == []


def test_a_change_of_missing_values_that_chance_explains_passes() -> None:
    options = QualityOptions(max_missing_change=0.05)
    assert messages(options, numbers(missing_change=0.2, missing_chance=0.21)) == []
    assert messages(options, numbers(missing_change=0.2, missing_chance=0.19)) != []


def test_predictions_of_a_range_that_are_missing_or_infinite_do_not_pass() -> None:
    options = QualityOptions.model_validate({"output_ranges": {"x": {"least": 0, "most": 1e6}}})
    assert messages(options, numbers("output", rows=2000, missing=1999)) == [
        "output column x: 1,999 of its 2,000 values are missing"
    ]
    whole = numbers("output", kind="others", rows=2000, missing=2000, least=None, most=None)
    assert messages(options, whole) == ["output column x: 2,000 of its 2,000 values are missing"]
    infinite = numbers("output", infinite=10, least=None, most=None)
    assert messages(options, infinite) == ["output column x holds 10 infinite numbers"]


@pytest.mark.parametrize("check", ["max_drift", "max_missing_change", "output_ranges"])
def test_a_checked_column_that_was_not_looked_at_throughout_does_not_pass(check: str) -> None:
    options = QualityOptions.model_validate({check: {"x": {"most": 9}} if check == "output_ranges" else 0.5})
    column = numbers("output", unseen=5, drift=0.0, missing_change=0.0)
    assert messages(options, column) == ["output column x could not be looked at in 5 of its 15 rows"]
    if check != "output_ranges":
        assert messages(options.model_copy(update={"ignored_columns": ["x"]}), column) == []


def test_columns_that_change_all_the_time_are_left_out() -> None:
    options = QualityOptions(max_drift=0.1, max_missing_change=0.1, ignored_columns=["x"])
    assert messages(options, numbers(drift=5.0, missing_change=1.0)) == []


def test_checks_without_sketches_are_refused() -> None:
    with pytest.raises(ValidationError, match="checks of columns need sketches"):
        QualityOptions(sketches=False, max_drift=0.2)
    assert QualityOptions(sketches=False, max_failure_rate=0.2).has_checks


def test_an_invoke_changes_single_checks_of_the_deployment() -> None:
    deployment = BatchDeployment.model_validate(
        {"name": "blue", "endpoint_name": "prices", "batchpoint": {"quality": {"max_drift": 0.2, "reference": "then"}}}
    )
    overrides = Overrides.model_validate({"quality": {"max_drift": 0.5, "canary_percent": 10}})
    effective, _ = effective_deployment(deployment, overrides, Compute(name="local"))
    found = effective.batchpoint.quality
    assert (found.max_drift, found.reference, found.canary_percent) == (0.5, "then", 10)


def test_what_an_invoke_leaves_out_stays_however_deep_it_lies() -> None:
    ranges = {"price": {"least": 0, "most": 9}, "area": {"least": 1}}
    options = {"quality": {"output_ranges": ranges}, "csv": {"delimiter": ";"}}
    deployment = BatchDeployment.model_validate({"name": "blue", "endpoint_name": "prices", "batchpoint": options})

    def effective(**overrides: object) -> ScoringOptions:
        changes = Overrides.model_validate(overrides)
        return effective_deployment(deployment, changes, Compute(name="local"))[0].batchpoint

    found = effective(csv={"encoding": "latin-1"}, quality={"output_ranges": {"price": {"most": 5}}})
    assert (found.csv.delimiter, found.csv.encoding) == (";", "latin-1")
    assert found.quality.model_dump(exclude_none=True)["output_ranges"] == {
        "price": {"least": 0, "most": 5}, "area": {"least": 1},
    }  # fmt: skip
    assert effective(quality={"output_ranges": {}}).quality.output_ranges == {}, "none was asked for"


@dataclass
class MiniBatch:
    """What a plan of the test is made of."""

    index: int


class Plan(list[MiniBatch]):
    """One with something to ask beside its mini-batches."""

    unit = "rows"


@pytest.mark.parametrize(
    ("percent", "expected"), [(10, [0, 10, 20]), (1, [0]), (50, list(range(0, 30, 2))), (99, list(range(30)))]
)
def test_a_share_of_the_mini_batches_spread_evenly_goes_first(percent: float, expected: list[int]) -> None:
    plan = CanaryPlan(Plan(map(MiniBatch, range(30))), percent)
    drawn: list[int] = []
    thread = threading.Thread(target=lambda: drawn.extend(mini_batch.index for mini_batch in plan))
    thread.start()
    while plan.first(lambda _: True) is None:
        pass
    assert drawn == expected
    assert plan.first(lambda index: index != expected[-1]) is None, "not all of them are done"
    plan.release()
    thread.join(5)
    assert drawn[: len(expected)] == expected
    assert sorted(drawn) == list(range(30))
    assert plan.unit == "rows"


def test_a_plan_that_is_given_up_yields_nothing_more() -> None:
    plan = CanaryPlan(Plan(map(MiniBatch, range(30))), 10)
    drawn: list[int] = []
    thread = threading.Thread(target=lambda: drawn.extend(mini_batch.index for mini_batch in plan))
    thread.start()
    while plan.first(lambda _: True) is None:
        pass
    plan.close()
    thread.join(5)
    assert drawn == [0, 10, 20]


def test_rows_that_were_checked_before_need_not_be_seen_again() -> None:
    options = QualityOptions.model_validate({"output_ranges": {"x": {"most": 5}}})
    (unseen, high) = failed_checks(options, [numbers("output", unseen=5)], items=15, failed=0)
    assert "could not be looked at" in unseen.message
    assert failed_checks(options, [numbers("output", unseen=5)], items=15, failed=0, bears_unseen=True) == [high]
