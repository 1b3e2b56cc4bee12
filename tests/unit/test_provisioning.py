from __future__ import annotations

import pytest

from batchpoint.entities.provisioning import Provisioning, mixed_configuration, read_configuration
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


def test_both_forms_of_the_scripts_file_are_read() -> None:
    assert read_configuration(SCRIPT, name="c.json").data_files == "data.txt"
    read = read_configuration({**SCRIPT, **OLDER}, name="c.json")
    assert (read.files, read.batch_script, read.schedule_name) == (["a.txt", "b.txt"], "b.py", "simple_pipeline_sched")


def test_the_file_of_pipelines_over_many_devices_is_read_by_its_own_names() -> None:
    given = {
        "resource_group_name": "rg",
        "sched_frequency": "Hour",
        "sched_interval": 3,
        "device_ids": [1, 2],
        "sensors": [5],
    }
    read = read_configuration(given, name="pipeline_config.json")
    assert (read.resourceGroup, read.frequency, read.schedule_interval) == ("rg", "hour", 3)
    assert (read.device_ids, read.sensors) == ((1, 2), (5,))


def test_wrong_types_and_unknown_keys_are_all_told_with_what_was_given_and_what_is_expected() -> None:
    wrong = {
        "batch_vm_min": "2", "region": 7, "schedule_interval": 1.5, "device_ids": ["1"], "workspace": True,
        "batch_compute_nam": "x", "source_container": None,
    }  # fmt: skip
    with pytest.raises(InvalidEntityError) as refused:
        read_configuration(wrong, name="batchconfiguration.json")
    assert str(refused.value).splitlines() == [
        "batchconfiguration.json has 7 faults:",
        "  key 'batch_vm_min' is '2', text; a whole number is expected.",
        "  key 'region' is 7, a whole number; text is expected.",
        "  key 'schedule_interval' is 1.5, a number; a whole number is expected.",
        "  key 'device_ids' is ['1'], a list; a list of whole numbers is expected.",
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
        ({"sensors": [1]}, "go together"),
        ({"subid": "a", "subscription_id": "b"}, "says the same as another"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidEntityError, match=said):
        read_configuration(values, name="c.json")


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default() -> None:
    environment = {"BATCHPOINT_PROVISION_BATCH_VM_MAX": "5", "BATCHPOINT_PROVISION_SENSORS": "1,2", "BATCH_VM_MIN": "1"}
    flags = {"batch_vm_min": 4, "batch_vm_max": None, "device_ids": (7,), "sensors": ()}
    read = mixed_configuration(flags, environment)
    assert (read.batch_vm_min, read.batch_vm_max, read.device_ids, read.sensors) == (4, 5, (7,), (1, 2))
    assert read.region == Provisioning().region
    with pytest.raises(
        InvalidEntityError, match="BATCHPOINT_PROVISION_BATCH_VM_MAX is 'many', text; a whole number is"
    ):
        mixed_configuration({}, {"BATCHPOINT_PROVISION_BATCH_VM_MAX": "many"})
