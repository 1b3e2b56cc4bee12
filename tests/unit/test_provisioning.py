from __future__ import annotations

import pytest

from batchpoint.entities.provisioning import Provisioning, Upload, mixed_configuration, read_configuration, unused
from batchpoint.errors import InvalidEntityError

SCRIPT = {
    "subid": "s", "resourceGroup": "rg", "region": "eastus", "workspace": "ws", "experiment": "e",
    "batch_compute_name": "dummybatch", "batch_vm_size": "Standard_D2", "batch_vm_min": 2, "batch_vm_max": 2,
    "source_container": "source", "result_container": "result", "schedule_frequency": "Hour", "schedule_interval": 1,
    "pipeline_name": "simple_pipeline",
}  # fmt: skip
"""The keys of the newer form of the script's file; the older form also has the next ones."""
OLDER = {
    "data_folder": "d", "data_files": "a.txt, b.txt", "result_file": "R.txt", "batch_script_folder": "s",
    "batch_script": "b.py",
}  # fmt: skip


SENSORS = {
    "resource_group_name": "rg", "subscription_id": "s", "aml_work_space": "ws", "experiment_name": "e",
    "cluster_name": "cluster", "workspace_region": "eastus", "blob_account": "account", "blob_key": "secret",
    "models_blob_container": "models", "data_blob_container": "data", "data_blob": "sensor_data.csv",
    "preds_blob_container": "all-preds", "pip_packages": ["numpy", "pandas"], "python_version": "3.6.6",
    "python_script_name": "predict.py", "python_script_directory": "scripts", "sched_frequency": "Hour",
    "sched_interval": 3, "device_ids": [1, 2, 3], "sensors": [1, 2, 3, 4, 5],
}  # fmt: skip
"""The 20 keys of the file of many sensors."""
SECRETS = {"sp_tenant": "t", "sp_client": "c", "sp_secret": "x", "location": "eastus"}
"""An older form also has these, and says ``tags`` for ``sensors``."""


def test_both_forms_of_the_scripts_file_are_read() -> None:
    read = read_configuration(SCRIPT, name="c.json")
    assert isinstance(read, Provisioning)
    assert (len(SCRIPT), read.data_files) == (14, "data.txt")
    solution = read_configuration({**SCRIPT, **OLDER}, name="c.json").solution()
    assert (solution.script, solution.schedule_name) == ("b.py", "simple_pipeline_sched")
    assert solution.uploads == (Upload("inputdata", "d", ("a.txt", "b.txt")),)
    assert solution.steps == {"batch": ("a.txt", "${{inputs.source}}", "R.txt", "${{outputs.result}}/result")}


def test_both_forms_of_the_file_of_many_sensors_are_read() -> None:
    solution = read_configuration(SENSORS, name="pipeline_config.json").solution()
    older = {key: value for key, value in SENSORS.items() if key not in ("sensors", "workspace_region")}
    assert read_configuration({**older, **SECRETS, "tags": [1, 2, 3, 4, 5]}, name="c.json").solution() == solution
    assert (len(SENSORS), unused({**SENSORS, **SECRETS})) == (
        20,
        ["subscription_id", "workspace_region", "blob_account", "blob_key", *SECRETS],
    )
    assert not {"account", "secret", "t", "c", "x"} & set(str(solution).replace("'", " ").split())
    assert (solution.pipeline_name, solution.schedule_name) == ("rg_pipeline", "rg_sched")
    assert (solution.frequency, solution.interval) == ("hour", 3)
    assert (solution.packages, solution.python_version) == (("numpy", "pandas"), "3.6.6")


def test_many_sensors_are_three_containers_and_a_step_for_each_pair() -> None:
    solution = read_configuration(SENSORS, name="pipeline_config.json").solution()
    assert solution.containers == {"models": "models", "data": "data", "all_preds": "all-preds"}
    assert solution.uploads == (Upload("models", "models"), Upload("data", "data", ("sensor_data.csv",)))
    assert (len(solution.steps), solution.output) == (15, "all_preds")
    assert solution.steps["device_2_sensor_5"] == (
        "2", "5", "${{inputs.models}}", "${{inputs.data}}", "sensor_data.csv", "${{outputs.result}}/all-preds",
    )  # fmt: skip
    compute = solution.compute
    assert (compute.size, compute.min_instances, compute.max_instances) == ("Standard_D2", 0, 2)


def test_wrong_types_of_the_file_of_many_sensors_are_told_and_secrets_are_not_repeated() -> None:
    wrong = {**SENSORS, "device_ids": [True], "sensors": 5, "pip_packages": ["numpy", 1], "blob_key": ["hush"]}
    del wrong["data_blob"]
    with pytest.raises(InvalidEntityError) as refused:
        read_configuration(wrong, name="pipeline_config.json")
    assert str(refused.value).splitlines() == [
        "pipeline_config.json has 5 faults:",
        "  key 'blob_key' is a list; text is expected.",
        "  key 'pip_packages' is ['numpy', 1], a list; a list of texts is expected.",
        "  key 'device_ids' is [True], a list; a list of whole numbers is expected.",
        "  key 'sensors' is 5, a whole number; a list of whole numbers is expected.",
        "  key 'data_blob' is missing; text is expected.",
    ]


def test_wrong_types_and_unknown_keys_are_all_told_with_what_was_given_and_what_is_expected() -> None:
    wrong = {
        "batch_vm_min": "2", "region": 7, "schedule_interval": 1.5, "workspace": True,
        "batch_compute_nam": "x", "source_container": None,
    }  # fmt: skip
    with pytest.raises(InvalidEntityError) as refused:
        read_configuration(wrong, name="batchconfiguration.json")
    assert str(refused.value).splitlines() == [
        "batchconfiguration.json has 6 faults:",
        "  key 'batch_vm_min' is '2', text; a whole number is expected.",
        "  key 'region' is 7, a whole number; text is expected.",
        "  key 'schedule_interval' is 1.5, a number; a whole number is expected.",
        "  key 'workspace' is True, a truth value; text is expected.",
        "  key 'batch_compute_nam' is not known. Did you mean 'batch_compute_name'?",
        "  key 'source_container' is None, nothing; text is expected.",
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"schedule_frequency": "Hourly"}, "Did you mean 'Hour'"),
        ({"schedule_interval": 0}, "at least 1"),
        ({"batch_vm_min": 3}, "between 0 and batch_vm_max"),
        ({"data_files": " , "}, "names no file"),
        ({**SENSORS, "tags": [1]}, "says the same as another"),
        ({**SENSORS, "data_blob_container": "models"}, "name three folders"),
        ({**SENSORS, "sched_frequency": "Hours"}, "Did you mean 'Hour'"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidEntityError, match=said):
        read_configuration(values, name="c.json")


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default() -> None:
    environment = {"BATCHPOINT_PROVISION_BATCH_VM_MAX": "5", "BATCHPOINT_PROVISION_REGION": "west", "BATCH_VM_MIN": "1"}
    flags = {"batch_vm_min": 4, "batch_vm_max": None}
    read = mixed_configuration(flags, environment)
    assert (read.batch_vm_min, read.batch_vm_max, read.region) == (4, 5, "west")
    assert read.workspace == Provisioning().workspace
    with pytest.raises(
        InvalidEntityError, match="BATCHPOINT_PROVISION_BATCH_VM_MAX is 'many', text; a whole number is"
    ):
        mixed_configuration({}, {"BATCHPOINT_PROVISION_BATCH_VM_MAX": "many"})
