"""The configuration of ``provision``: which keys there are, what each takes, and which source of a value wins. Pure.

The keys and defaults are those of two configuration files that people have: the provisioning script's
(``batch_compute_name``, ``source_container``, …) and the one of pipelines over many devices (``resource_group_name``,
``sched_frequency``, ``device_ids``, …).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

from batchpoint.entities.documents import suggestion
from batchpoint.errors import InvalidEntityError

VARIABLE_PREFIX = "BATCHPOINT_PROVISION_"
"""Before the key in capitals: an environment variable that holds its value."""

Frequency = Literal["minute", "hour", "day", "week", "month"]


def _key(default: Any, text: str, *others: str) -> Any:
    """A key with its default, its help, and other names that files have for it."""
    return field(default=default, metadata={"text": text, "others": others})


@dataclass(frozen=True)
class Provisioning:
    """What is to be there: containers with data, a compute, a published pipeline of one script, its schedule."""

    subid: str = _key("", "Subscription; recorded.", "subscription_id")
    resourceGroup: str = _key("", "Resource group; recorded.", "resource_group_name")  # noqa: N815 - the file's own key
    region: str = _key("", "Region; recorded.", "location")
    workspace: str = _key("", "Workspace; recorded.", "workspace_name", "aml_work_space")
    experiment: str = _key("batch_scoring", "Experiment name of the runs.", "experiment_name")
    batch_compute_name: str = _key("dummybatch", "Compute; used as it is where it exists.", "cluster_name")
    batch_vm_size: str = _key("Standard_D2", "Size of a new compute; recorded.", "vm_size")
    batch_vm_min: int = _key(2, "Instances of a new compute that stay warm.", "min_nodes")
    batch_vm_max: int = _key(2, "Instances of a new compute at most.", "max_nodes")
    source_container: str = _key("source", "Folder that the script reads from.", "data_container")
    result_container: str = _key("result", "Folder that the script writes to.", "preds_container")
    container_root: str = _key("", "Folder of the server's machine that the containers lie in.")
    data_folder: str = _key(".", "Folder of the files that are uploaded.")
    data_files: str = _key("data.txt", "Names of these files, divided by commas.")
    result_file: str = _key("Results.txt", "Name of the file that the script writes.")
    batch_script_folder: str = _key("code", "Folder of the script and of all that it imports.")
    batch_script: str = _key("batch.py", "The script.")
    schedule_frequency: str = _key("Hour", "Minute, Hour, Day, Week or Month.", "sched_frequency")
    schedule_interval: int = _key(1, "How many of these lie between two runs.", "sched_interval")
    pipeline_name: str = _key("simple_pipeline", "Name of the published pipeline.")
    device_ids: tuple[int, ...] = _key((), "With sensors: the script is run once for each pair.")
    sensors: tuple[int, ...] = _key((), "With devices: the script is run once for each pair.")

    @property
    def files(self) -> list[str]:
        """The names in ``data_files``."""
        return [name.strip() for name in self.data_files.split(",") if name.strip()]

    @property
    def frequency(self) -> Frequency:
        """The frequency in the words of a schedule."""
        return cast("Frequency", self.schedule_frequency.lower())

    @property
    def schedule_name(self) -> str:
        """Name of the pipeline's schedule."""
        return f"{self.pipeline_name}_sched"


KEYS: dict[str, str] = {each.name: each.metadata["text"] for each in fields(Provisioning)}
"""Every key, and what it means."""

_TYPES: dict[str, tuple[type, str]] = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "tuple[int, ...]": (list, "a list of whole numbers"),
}
_OTHER_NAMES = {other: each.name for each in fields(Provisioning) for other in each.metadata["others"]}
_KIND_OF: dict[str, str] = {each.name: str(each.type) for each in fields(Provisioning)}


def read_configuration(values: Mapping[str, Any], *, name: str) -> Provisioning:
    """The configuration of a file: what it does not say has its default.

    Raises:
        InvalidEntityError: every key that is not known, with the nearest one, and every value of another type, with
            what was given and what is expected.
    """
    known: dict[str, Any] = {}
    problems = []
    for key, value in values.items():
        own = _OTHER_NAMES.get(key, key)
        if own not in KEYS:
            problems.append(f"key '{key}' is not known. {suggestion(key, [*KEYS, *_OTHER_NAMES])}")
        elif not _fits(value, _KIND_OF[own]):
            expected = _TYPES[_KIND_OF[own]][1]
            problems.append(f"key '{key}' is {value!r}, {_type_of(value)}; {expected} is expected.")
        elif own in known:
            problems.append(f"key '{key}' says the same as another one of the file. Leave one of them out.")
        else:
            known[own] = tuple(value) if isinstance(value, list) else value
    return _checked(known, name, problems)


def mixed_configuration(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Provisioning:
    """The configuration without a file: a flag wins over an environment variable, which wins over the default.

    Raises:
        InvalidEntityError: an environment variable is not of its type.
    """
    known: dict[str, Any] = {}
    problems = []
    for key in KEYS:
        variable = f"{VARIABLE_PREFIX}{key.upper()}"
        if flags.get(key) not in (None, ()):
            known[key] = flags[key]
        elif (text := environment.get(variable)) is not None:
            try:
                known[key] = _read(text, _KIND_OF[key])
            except ValueError:
                problems.append(f"{variable} is {text!r}, text; {_TYPES[_KIND_OF[key]][1]} is expected.")
    return _checked(known, "The configuration", problems)


def defaults() -> dict[str, Any]:
    """Each key with its default."""
    return {each.name: each.default for each in fields(Provisioning)}


def _checked(known: Mapping[str, Any], name: str, problems: list[str]) -> Provisioning:
    configuration = Provisioning(**known)
    problems += _contradictions(configuration)
    if problems:
        head = f"{name} is not valid:" if len(problems) == 1 else f"{name} has {len(problems)} faults:"
        raise InvalidEntityError("\n  ".join([head, *problems]), problems=problems)
    return configuration


def _contradictions(given: Provisioning) -> Iterable[str]:
    if given.schedule_frequency.lower() not in ("minute", "hour", "day", "week", "month"):
        hint = suggestion(given.schedule_frequency, ["Minute", "Hour", "Day", "Week", "Month"])
        yield f"key 'schedule_frequency' is {given.schedule_frequency!r}. {hint}"
    if given.schedule_interval < 1:
        yield f"key 'schedule_interval' is {given.schedule_interval}; a number of at least 1 is expected."
    if not 0 <= given.batch_vm_min <= max(given.batch_vm_max, 1):
        yield f"key 'batch_vm_min' is {given.batch_vm_min}; it lies between 0 and batch_vm_max ({given.batch_vm_max})."
    if given.batch_vm_max < 1:
        yield f"key 'batch_vm_max' is {given.batch_vm_max}; a number of at least 1 is expected."
    if not given.files:
        yield "key 'data_files' names no file."
    if bool(given.device_ids) != bool(given.sensors):
        yield "keys 'device_ids' and 'sensors' go together: give both, or neither."


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return False
    if kind == "tuple[int, ...]":
        return isinstance(value, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in value)
    return isinstance(value, _TYPES[kind][0])


def _read(text: str, kind: str) -> Any:
    if kind == "int":
        return int(text)
    return tuple(int(each) for each in text.split(",") if each.strip()) if kind == "tuple[int, ...]" else text


def _type_of(value: Any) -> str:
    if value is None:
        return "nothing"
    words = {bool: "a truth value", int: "a whole number", float: "a number", str: "text", list: "a list"}
    return words.get(type(value), "a mapping")
