"""The configurations of ``provision``: which keys there are, what each takes, which source of a value wins. Pure.

The keys and defaults are those of two configuration files that people have: the provisioning script's
(``batch_compute_name``, ``source_container``, …) and the one of a solution with many sensors
(``resource_group_name``, ``sched_frequency``, ``device_ids``, …). Either is turned into one ``Solution``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, cast

from batchpoint.entities.documents import read_body, suggestion
from batchpoint.entities.resources import Compute
from batchpoint.errors import InvalidEntityError

VARIABLE_PREFIX = "BATCHPOINT_PROVISION_"
"""Before the key in capitals: an environment variable that holds its value."""

Frequency = Literal["minute", "hour", "day", "week", "month"]

INPUT, OUTPUT = "inputdata", "outputdata"
"""The datastores over the two containers of a script."""


def _key(default: Any, text: str, *others: str, counts: bool = True, is_needed: bool = False) -> Any:
    """A key with its default, its help, and other names that files have for it; one that does not count is not used."""
    metadata = {"text": text, "others": others, "counts": counts, "is_needed": is_needed}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Upload:
    """Files for a container: those of a folder of this machine that are named, or all of them."""

    datastore: str
    folder: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Solution:
    """What is to be there, whichever configuration says so."""

    workspace: str
    experiment: str
    container_root: str
    """Folder that the containers lie in; empty: in the home folder."""
    containers: Mapping[str, str]
    """Each datastore, and the name of its container."""
    uploads: tuple[Upload, ...]
    packages: tuple[str, ...]
    """Packages of the environment; none: what the server has."""
    python_version: str
    compute: Compute
    script_folder: str
    script: str
    inputs: Mapping[str, str]
    """Each input of a step, and the datastore that it is."""
    output: str
    """The datastore that outputs are kept in."""
    steps: Mapping[str, tuple[str, ...]]
    """Each step, and what the script is called with in it."""
    pipeline_name: str
    schedule_name: str
    frequency: Frequency
    interval: int


@dataclass(frozen=True)
class Provisioning:
    """What is to be there: containers with data, a compute, a published pipeline of one script, its schedule."""

    subid: str = _key("", "Subscription; recorded.")
    resourceGroup: str = _key("", "Resource group; recorded.")  # noqa: N815 - the file's own key
    region: str = _key("", "Region; recorded.")
    workspace: str = _key("", "Workspace; recorded.")
    experiment: str = _key("batch_scoring", "Experiment name of the runs.")
    batch_compute_name: str = _key("dummybatch", "Compute; used as it is where it exists.")
    batch_vm_size: str = _key("Standard_D2", "Size of a new compute; recorded.")
    batch_vm_min: int = _key(2, "Instances of a new compute that stay warm.")
    batch_vm_max: int = _key(2, "Instances of a new compute at most.")
    source_container: str = _key("source", "Folder that the script reads from.")
    result_container: str = _key("result", "Folder that the script writes to.")
    container_root: str = _key("", "Folder of the server's machine that the containers lie in.")
    data_folder: str = _key(".", "Folder of the files that are uploaded.")
    data_files: str = _key("data.txt", "Names of these files, divided by commas.")
    result_file: str = _key("Results.txt", "Name of the file that the script writes.")
    batch_script_folder: str = _key("code", "Folder of the script and of all that it imports.")
    batch_script: str = _key("batch.py", "The script.")
    schedule_frequency: str = _key("Hour", "Minute, Hour, Day, Week or Month.")
    schedule_interval: int = _key(1, "How many of these lie between two runs.")
    pipeline_name: str = _key("simple_pipeline", "Name of the published pipeline.")

    @property
    def files(self) -> list[str]:
        """The names in ``data_files``."""
        return [name.strip() for name in self.data_files.split(",") if name.strip()]

    def solution(self) -> Solution:
        """One script, called with its input file, the folder of it, its output file and a folder for that."""
        result_folder = f"${{{{outputs.result}}}}/{self.result_container}"
        return Solution(
            workspace=self.workspace,
            experiment=self.experiment,
            container_root=self.container_root,
            containers={INPUT: self.source_container, OUTPUT: self.result_container},
            uploads=(Upload(INPUT, self.data_folder, tuple(self.files)),),
            packages=(),
            python_version="",
            compute=_compute(self.batch_compute_name, self.batch_vm_size, self.batch_vm_min, self.batch_vm_max),
            script_folder=self.batch_script_folder,
            script=self.batch_script,
            inputs={"source": INPUT},
            output=OUTPUT,
            steps={"batch": (self.files[0], "${{inputs.source}}", self.result_file, result_folder)},
            pipeline_name=self.pipeline_name,
            schedule_name=f"{self.pipeline_name}_sched",
            frequency=cast("Frequency", self.schedule_frequency.lower()),
            interval=self.schedule_interval,
        )

    def contradictions(self) -> Iterable[str]:
        """What is wrong with the values together."""
        yield from _wrong_times(
            "schedule_frequency", self.schedule_frequency, "schedule_interval", self.schedule_interval
        )
        least, most = self.batch_vm_min, self.batch_vm_max
        if not 0 <= least <= max(most, 1):
            yield f"key 'batch_vm_min' is {least}; it lies between 0 and batch_vm_max ({most})."
        if most < 1:
            yield f"key 'batch_vm_max' is {most}; a number of at least 1 is expected."
        if not self.files:
            yield "key 'data_files' names no file."


_NOT_USED = "Not used, and written down nowhere."

VM_SIZE, MOST_INSTANCES = "Standard_D2", 2
"""Of a new compute for many sensors. It keeps no instance warm between the times of its schedule."""


@dataclass(frozen=True)
class ManySensors:
    """What is to be there: models, data and predictions, and a script that is run for each sensor of each device."""

    resource_group_name: str = _key("", "Names pipeline, schedule and environment.", is_needed=True)
    subscription_id: str = _key("", _NOT_USED, counts=False)
    aml_work_space: str = _key("", "Workspace; recorded.")
    experiment_name: str = _key("", "Experiment name of the runs; else the resource group's name.")
    cluster_name: str = _key("", "Compute; used as it is where it exists.", is_needed=True)
    workspace_region: str = _key("", _NOT_USED, counts=False)
    location: str = _key("", _NOT_USED, counts=False)
    blob_account: str = _key("", _NOT_USED, counts=False)
    blob_key: str = _key("", _NOT_USED, counts=False)
    sp_tenant: str = _key("", _NOT_USED, counts=False)
    sp_client: str = _key("", _NOT_USED, counts=False)
    sp_secret: str = _key("", _NOT_USED, counts=False)
    models_blob_container: str = _key("models", "Folder that the script reads models from.")
    data_blob_container: str = _key("data", "Folder that the script reads data from.")
    data_blob: str = _key("", "Name of the data file.", is_needed=True)
    preds_blob_container: str = _key("preds", "Folder that predictions are kept in.")
    container_root: str = _key("", "Folder of the server's machine that the containers lie in.")
    models_folder: str = _key("models", "Folder of the models that are uploaded.")
    data_folder: str = _key("data", "Folder of the data file that is uploaded.")
    pip_packages: tuple[str, ...] = _key((), "Packages that the script needs.")
    python_version: str = _key("", "Recorded; the server's Python runs the script.")
    python_script_name: str = _key("", "The script.", is_needed=True)
    python_script_directory: str = _key(".", "Folder of the script and of all that it imports.")
    sched_frequency: str = _key("Hour", "Minute, Hour, Day, Week or Month.")
    sched_interval: int = _key(1, "How many of these lie between two runs.")
    device_ids: tuple[int, ...] = _key((), "The script is run for each sensor of each device.", is_needed=True)
    sensors: tuple[int, ...] = _key((), "The sensors that every device has.", "tags", is_needed=True)

    def solution(self) -> Solution:
        """One step for each device and sensor.

        The script is called with device, sensor, folder of the models, folder of the data, name of the data file, and
        a folder for its predictions, which it makes itself.
        """
        models, data, preds = map(_datastore_of, self._containers)
        folders = ("${{inputs.models}}", "${{inputs.data}}", self.data_blob)
        result_folder = f"${{{{outputs.result}}}}/{self.preds_blob_container}"
        return Solution(
            workspace=self.aml_work_space,
            experiment=self.experiment_name or self.resource_group_name,
            container_root=self.container_root,
            containers={_datastore_of(name): name for name in self._containers},
            uploads=(Upload(models, self.models_folder), Upload(data, self.data_folder, (self.data_blob,))),
            packages=self.pip_packages,
            python_version=self.python_version,
            compute=_compute(self.cluster_name, VM_SIZE, 0, MOST_INSTANCES),
            script_folder=self.python_script_directory,
            script=self.python_script_name,
            inputs={"models": models, "data": data},
            output=preds,
            steps={
                f"device_{device}_sensor_{sensor}": (str(device), str(sensor), *folders, result_folder)
                for device in self.device_ids
                for sensor in self.sensors
            },
            pipeline_name=f"{self.resource_group_name}_pipeline",
            schedule_name=f"{self.resource_group_name}_sched",
            frequency=cast("Frequency", self.sched_frequency.lower()),
            interval=self.sched_interval,
        )

    @property
    def _containers(self) -> tuple[str, str, str]:
        return self.models_blob_container, self.data_blob_container, self.preds_blob_container

    def contradictions(self) -> Iterable[str]:
        """What is wrong with the values together."""
        for each in fields(self):
            if each.metadata["is_needed"] and not getattr(self, each.name):
                yield f"key '{each.name}' is missing; {_TYPES[str(each.type)][1]} is expected."
        yield from _wrong_times("sched_frequency", self.sched_frequency, "sched_interval", self.sched_interval)
        if len({_datastore_of(name) for name in self._containers}) < len(self._containers):
            yield "keys 'models_blob_container', 'data_blob_container' and 'preds_blob_container' name three folders."
        if not all(self._containers):
            yield "a container is given no name."


Configuration = Provisioning | ManySensors
C = TypeVar("C", bound=Configuration)


def _compute(name: str, size: str, least: int, most: int) -> Compute:
    body = {"name": name, "size": size, "min_instances": least, "max_instances": most}
    return read_body(Compute, body, name=f"Compute {name}")


def _datastore_of(container: str) -> str:
    """Names of datastores have no dashes."""
    return re.sub(r"\W", "_", container, flags=re.ASCII)


def _wrong_times(frequency_key: str, frequency: str, interval_key: str, interval: int) -> Iterable[str]:
    if frequency.lower() not in ("minute", "hour", "day", "week", "month"):
        hint = suggestion(frequency, ["Minute", "Hour", "Day", "Week", "Month"])
        yield f"key '{frequency_key}' is {frequency!r}. {hint}"
    if interval < 1:
        yield f"key '{interval_key}' is {interval}; a number of at least 1 is expected."


KEYS: dict[str, str] = {each.name: each.metadata["text"] for each in fields(Provisioning)}
"""Every key of a script's configuration, and what it means. These have flags and variables."""

_TYPES: dict[str, tuple[type, str]] = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "tuple[int, ...]": (list, "a list of whole numbers"),
    "tuple[str, ...]": (list, "a list of texts"),
}


def read_configuration(values: Mapping[str, Any], *, name: str) -> Configuration:
    """The configuration of a file, of the kind that its keys are of: what it does not say has its default.

    Raises:
        InvalidEntityError: every key that is not known, with the nearest one, and every value of another type, with
            what was given and what is expected.
    """
    kinds_of_file: tuple[type[Configuration], ...] = (Provisioning, ManySensors)
    kind = max(kinds_of_file, key=lambda each: len(values.keys() & _names(each).keys()))
    names = _names(kind)
    kinds = {each.name: str(each.type) for each in fields(kind)}
    known: dict[str, Any] = {}
    problems = []
    for key, value in values.items():
        own = names.get(key)
        if own is None:
            problems.append(f"key '{key}' is not known. {suggestion(key, names)}")
        elif not _fits(value, kinds[own]):
            problems.append(_wrong_type(key, value, kinds[own], is_secret=key in unused([key])))
        elif own in known:
            problems.append(f"key '{key}' says the same as another one of the file. Leave one of them out.")
        else:
            known[own] = tuple(value) if isinstance(value, list) else value
    wrong = {names[key] for key in values if key in names} - known.keys()
    return _checked(kind(**known), name, problems, wrong)


def unused(keys: Iterable[str]) -> list[str]:
    """Those of ``keys`` that files have and nothing here needs: accounts and secrets."""
    ours = {each.name for each in fields(ManySensors) if not each.metadata["counts"]}
    return [key for key in keys if key in ours]


def mixed_configuration(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Provisioning:
    """A script's configuration without a file: a flag wins over an environment variable, which wins over the default.

    Raises:
        InvalidEntityError: an environment variable is not of its type.
    """
    known: dict[str, Any] = {}
    problems = []
    for each in fields(Provisioning):
        key, kind = each.name, str(each.type)
        variable = f"{VARIABLE_PREFIX}{key.upper()}"
        if flags.get(key) is not None:
            known[key] = flags[key]
        elif (text := environment.get(variable)) is not None:
            try:
                known[key] = int(text) if kind == "int" else text
            except ValueError:
                problems.append(f"{variable} is {text!r}, text; {_TYPES[kind][1]} is expected.")
    return _checked(Provisioning(**known), "The configuration", problems)


def defaults() -> dict[str, Any]:
    """Each key of a script's configuration with its default."""
    return {each.name: each.default for each in fields(Provisioning)}


def _names(kind: type[Configuration]) -> dict[str, str]:
    """Every name that a file may have for a key, and the key."""
    return {name: each.name for each in fields(kind) for name in (each.name, *each.metadata["others"])}


def _checked(configuration: C, name: str, problems: list[str], wrong: Collection[str] = ()) -> C:
    """The configuration, if nothing is wrong with it; of keys that are ``wrong`` already nothing more is said."""
    problems += [said for said in configuration.contradictions() if not any(f"'{key}'" in said for key in wrong)]
    if problems:
        head = f"{name} is not valid:" if len(problems) == 1 else f"{name} has {len(problems)} faults:"
        raise InvalidEntityError("\n  ".join([head, *problems]), problems=problems)
    return configuration


def _wrong_type(key: str, value: Any, kind: str, *, is_secret: bool) -> str:
    given = _type_of(value) if is_secret else f"{value!r}, {_type_of(value)}"
    return f"key '{key}' is {given}; {_TYPES[kind][1]} is expected."


def _fits(value: Any, kind: str) -> bool:
    if kind.startswith("tuple"):
        item = int if "int" in kind else str
        return isinstance(value, list) and all(type(each) is item for each in value)
    return type(value) is _TYPES[kind][0]


def _type_of(value: Any) -> str:
    if value is None:
        return "nothing"
    words = {bool: "a truth value", int: "a whole number", float: "a number", str: "text", list: "a list"}
    return words.get(type(value), "a mapping")
