from __future__ import annotations

from typing import Any

import pytest

from batchpoint.entities.overrides import read_overrides
from batchpoint.errors import InvalidEntityError


@pytest.mark.parametrize(
    "given",
    [
        [{"compute.instance_count": 4}, {"retry_settings.max_retries": 2}, {"retry_settings.timeout": 60}],
        [{"instance_count": 4, "max_retries": 2, "timeout": 60}],
        [{"compute": {"instance_count": 4}, "settings": {"retry_settings": {"max_retries": 2, "timeout": 60}}}],
        [{"resources": {"instance_count": 1}}, {"instance_count": 4}, {"settings.max_retries": 2, "timeout": "60"}],
    ],
)
def test_every_spelling_of_azures_tools_means_the_same(given: list[dict[str, object]]) -> None:
    overrides = read_overrides(given).overrides

    assert overrides.instance_count == 4
    assert overrides.retry_settings is not None
    assert (overrides.retry_settings.max_retries, overrides.retry_settings.timeout) == (2, 60)


def test_our_own_options_may_be_changed_too() -> None:
    overrides = read_overrides([{"batchpoint.split": "rows", "csv": {"delimiter": ";"}}]).overrides

    assert overrides.split == "rows"
    assert overrides.csv is not None
    assert overrides.csv.delimiter == ";"


def test_an_output_dataset_is_a_place_for_the_output() -> None:
    given = [{"output_dataset.datastore_id": "azureml:blobs"}, {"output_dataset.path": "a/b"}, {"job_name": "one"}]

    changes = read_overrides(given)

    assert changes.outputs["score"].path == "azureml://datastores/blobs/paths/a/b"
    assert changes.job_name == "one"


def test_what_an_invoke_may_not_change_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InvalidEntityError, match=r"'mini_batch_sise' cannot be changed at invoke. Did you mean 'mini_"):
        read_overrides([{"mini_batch_sise": 2}])
    with pytest.raises(InvalidEntityError, match="'output_action' cannot be changed at invoke"):
        read_overrides([{"output_action": "summary_only"}])
    with pytest.raises(InvalidEntityError, match="whole number"):
        read_overrides([{"mini_batch_size": "many"}])


@pytest.mark.parametrize("given", [{"tags": 5}, {"job_name": {"a": 1}}, "text", {"output_dataset": "x"}, {"_": 1}])
def test_what_is_no_override_is_refused_in_words(given: Any) -> None:
    with pytest.raises(InvalidEntityError):
        read_overrides([given])


def test_the_last_override_wins_also_over_what_makes_no_sense() -> None:
    assert read_overrides([{"retry_settings": 5}, {"max_retries": 1}]).overrides.retry_settings is not None
