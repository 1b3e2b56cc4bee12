"""What a person may declare of a model map, and of files for each key."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from batchpoint.entities.endpoints import BatchDeployment, ModelMap
from batchpoint.entities.local_paths import local_paths
from batchpoint.entities.scored_models import ModelReport
from batchpoint.operations.model_maps import without_earlier

BY_NAME = {"name_pattern": "model_{Device}_{Sensor}"}


def deployment(model_map: dict[str, Any] | None = None, **changes: Any) -> BatchDeployment:
    options = {"partition_keys": ["Device", "Sensor"], "model_map": model_map, **changes.pop("batchpoint", {})}
    return BatchDeployment.model_validate({"name": "blue", "endpoint_name": "iot", "batchpoint": options, **changes})


def test_a_deployment_with_a_model_map_needs_neither_model_nor_script() -> None:
    stored = deployment({**BY_NAME, "labels": {-1: 1, 1: 0}})
    assert stored.model is None
    assert stored.batchpoint.model_map is not None
    assert stored.batchpoint.model_map.labels == {"-1": 1, "1": 0}


@pytest.mark.parametrize(
    ("model_map", "said"),
    [
        ({}, "exactly one of name_pattern, tags, folder, mapping; found none of them"),
        ({**BY_NAME, "mapping": "a.csv"}, "found name_pattern and mapping"),
        ({"folder": "models"}, "folder and file_pattern together"),
        ({**BY_NAME, "file_pattern": "{Device}"}, "folder and file_pattern together"),
        ({**BY_NAME, "on_missing": "default"}, "default_model together"),
        ({**BY_NAME, "default_model": "m:1"}, "default_model together"),
        ({**BY_NAME, "cached_models": 0}, "greater than or equal to 1"),
        ({"name_pattern": "model_{Device}"}, r"lacks \{Sensor\}"),
        ({"name_pattern": "model_{Device}_{Sensor}_{Line}"}, r"\{Line\} in .* is not a partition key"),
        ({"tags": {"Device": "device"}}, "tags names Device, and the partition_keys are Device, Sensor"),
    ],
)
def test_a_map_that_cannot_be_meant_is_refused_in_words(model_map: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        deployment(model_map)


def test_a_map_stands_instead_of_model_and_script_and_needs_keys() -> None:
    with pytest.raises(ValidationError, match=r"either 'model' or batchpoint\.model_map, not both"):
        deployment(BY_NAME, model="m:1")
    with pytest.raises(ValidationError, match=r"either 'code_configuration' or batchpoint\.model_map"):
        deployment(BY_NAME, code_configuration={"code": "c", "scoring_script": "s.py"})
    with pytest.raises(ValidationError, match="model_map needs partition_keys"):
        deployment(BY_NAME, batchpoint={"partition_keys": []})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"file_per_key": "a_{Device}.csv"}, r"lacks \{Sensor\}"),
        ({"file_per_key": "{Device}_{Sensor}.csv", "partition_keys": []}, "file_per_key needs partition_keys"),
        ({"file_per_key": "{Device}/{Sensor}.csv"}, "pattern"),
        ({"one_file": False}, "one_file: false needs file_per_key"),
        ({"rename": {"a": "x", "b": "x"}}, "one name to two columns"),
    ],
)
def test_files_for_each_key_and_names_of_columns_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        deployment(None, batchpoint=options, model="m:1")


def test_local_folders_and_files_of_a_map_are_found_and_references_are_not() -> None:
    def paths(model_map: dict[str, Any]) -> list[str]:
        return [found.path for found in local_paths("deployment", {"batchpoint": {"model_map": model_map}})]

    assert paths({"folder": "made/models"}) == ["made/models"]
    assert paths({"folder": "models"}) == ["models"]
    assert paths({"mapping": "map.csv", "default_model": "./any.pkl"}) == ["map.csv", "./any.pkl"]
    assert paths({"mapping": "map.csv", "default_model": {"name": "any", "path": "any.pkl"}}) == ["map.csv", "any.pkl"]
    for reference in ("azureml:models:1", "models:1", "models@latest", "azureml://datastores/lake/paths/models"):
        assert paths({"folder": reference}) == [], reference


def test_keys_are_text_whatever_yaml_makes_of_them() -> None:
    given = {"tags": {1: "device"}, "labels": {True: "yes"}}
    assert ModelMap.model_validate(given).labels == {"True": "yes"}


def test_the_board_counts_of_a_retry_only_what_it_did_itself() -> None:
    def report(store: str, rows: int, failed: int, message: str | None = None, seconds: float = 1.0) -> ModelReport:
        return ModelReport(key={"store": store}, rows=rows, failed=failed, seconds=seconds, message=message)

    first = [report("east", 2, 0), report("north", 0, 1, "no model"), report("west", 0, 3, "no model")]
    tried = report("west", 0, 3, "no model", seconds=1.5)
    again = [report("east", 2, 0), report("north", 1, 0), tried, report("new", 4, 0)]
    found = without_earlier(again, first)
    assert [(each.rows, each.failed, each.seconds) for each in found] == [(1, 0, 0), (0, 0, 0.5), (4, 0, 1)]
    assert [each.message for each in found] == [None, "no model", None], "nothing is said of east, which was left alone"
