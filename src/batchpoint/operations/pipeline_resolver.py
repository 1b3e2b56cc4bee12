"""Everything that a pipeline names, found: components, code, environments, models, data, computes, datastores."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from batchpoint.entities.assets import Code, Data, Environment, Model
from batchpoint.entities.base import AssetKind
from batchpoint.entities.bindings import binding_of
from batchpoint.entities.components import (
    DATA_TYPES,
    STEP_KINDS,
    as_steps,
    as_typed,
    expanded,
    given_value,
    input_port,
    output_path,
    typed_by_steps,
)
from batchpoint.entities.documents import suggestion
from batchpoint.entities.jobs import LiteralValue
from batchpoint.entities.pipeline_faults import Fault
from batchpoint.entities.pipelines import (
    CommandStep,
    Component,
    DataBinding,
    InputPort,
    ParallelStep,
    ParallelTask,
    Pipeline,
    PipelineStep,
    Step,
)
from batchpoint.entities.resources import Compute
from batchpoint.errors import DatastoreError, InputError, InvalidEntityError, NotFoundError
from batchpoint.operations.deployments import check_script
from batchpoint.operations.places import Places, asset_reference
from batchpoint.registry import Registry

if TYPE_CHECKING:
    from batchpoint.operations.assets import Assets

COMPONENT: AssetKind = "component"

T = TypeVar("T")

_WILD = frozenset("*?[")


class PipelineResolver:
    """Turns a pipeline as declared into one that refers to registered versions alone; notes what cannot be found.

    One object for one pipeline. Without ``register`` it looks only: what is declared in place stays in place.
    """

    def __init__(
        self, registry: Registry, assets: Assets, places: Places, *, by: str | None = None, register: bool = False
    ) -> None:
        self.faults: list[Fault] = []
        """What could not be found, or is wrong."""
        self._registry = registry
        self._assets = assets
        self._places = places
        self._by = by
        self._register = register

    def resolve(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline with everything in it resolved; ``faults`` has the rest."""
        changes: dict[str, Any] = {}
        if pipeline.component is not None:
            changes["component"] = self._component(pipeline.component, "component", "jobs")
        settings = pipeline.settings
        if settings.default_compute is not None:
            self._look("settings.default_compute", self._compute, settings.default_compute, 1)
        if pipeline.compute is not None:
            self._look("compute", self._compute, pipeline.compute, 1)
        if (datastore := settings.default_datastore) is not None:
            place = "settings.default_datastore"
            self._look(place, self._registry.resources.get, "datastore", datastore.removeprefix("azureml:"))
        for name, output in pipeline.outputs.items():
            self._look(f"outputs.{name}", self._output, output.path)
        declared = as_steps(pipeline.model_copy(update=changes)).inputs
        changes["inputs"] = {
            name: self._look(f"inputs.{name}", self._pipeline_input, given) or given for name, given in declared.items()
        }
        changes["jobs"] = self._steps(pipeline.jobs, "jobs")
        changes["inputs"] = typed_by_steps(changes["inputs"], changes["jobs"].values())
        return pipeline.model_copy(update=changes)

    def resolve_component(self, component: Component) -> Component:
        """The same for a component by itself."""
        resolved = self._component(component, "component", "jobs")
        assert isinstance(resolved, Component), "no reference was looked for"
        self.faults = [replace(fault, place=fault.place.removeprefix("component.")) for fault in self.faults]
        return resolved

    def _look(self, place: str, find: Callable[..., T], *arguments: Any) -> T | None:
        """What a look-up finds; None, and a fault, when it finds nothing."""
        try:
            return find(*arguments)
        except (InvalidEntityError, NotFoundError, InputError, DatastoreError) as error:
            self.faults.append(Fault(place, error.message))
            return None

    def _steps(self, jobs: Mapping[str, Step], at: str) -> dict[str, Step]:
        return {name: self._step(step, f"{at}.{name}") for name, step in jobs.items()}

    def _step(self, step: Step, at: str) -> Step:
        if step.component is not None:
            component = self._component(step.component, f"{at}.component", f"{at}.jobs")
            step = self._of_its_kind(step, component, at)
        changes: dict[str, Any] = {"type": step.type}
        whole = expanded(step)
        if step.compute is not None:
            instances = 1 if isinstance(whole, PipelineStep) else whole.resources.instance_count
            self._look(f"{at}.compute", self._compute, step.compute, instances)
        changes["inputs"] = {name: self._input(whole, name, f"{at}.inputs.{name}") for name in whole.inputs}
        for name, output in step.outputs.items():
            self._look(f"{at}.outputs.{name}", self._output, output_path(output))
        quality = whole.batchpoint.quality if isinstance(whole, ParallelStep) else None
        if quality is not None and quality.checks_changes and quality.reference is not None:
            self._look(f"{at}.batchpoint.quality.reference", self._registry.jobs.get, quality.reference)
        step = step.model_copy(update=changes)
        return step.model_copy(update=self._content(step, at))

    def _component(self, given: str | Component, place: str, inner: str) -> str | Component:
        found = self._look(place, self._find_component, given) if isinstance(given, str) else given
        if found is None:
            return given
        changes = self._content(found, place)
        if found.jobs:
            changes["jobs"] = self._steps(found.jobs, inner)
        return found.model_copy(update=changes)

    def _find_component(self, text: str) -> Component:
        reference = asset_reference(text) or text
        try:
            return cast("Component", self._assets.resolve(COMPONENT, reference))
        except NotFoundError as error:
            known = {asset.name for asset in self._registry.assets.list(COMPONENT, limit=1000)}
            name = reference if isinstance(reference, str) else reference.name
            hint = "" if name in known else suggestion(name, known)
            raise NotFoundError(f"{error.message} {hint}".strip()) from None

    def _of_its_kind(self, step: Step, component: str | Component, at: str) -> Step:
        """A step that does not say its type is of the type of its component."""
        step = step.model_copy(update={"component": component})
        if isinstance(component, str) or step.type == component.type:
            return step
        if "type" in step.model_fields_set:
            message = f"the step is of type {step.type}, and component {component.name} is of type {component.type}."
            self.faults.append(Fault(f"{at}.type", message))
            return step.model_copy(update={"component": component.name})
        kind = STEP_KINDS[component.type]
        given = {key: getattr(step, key) for key in step.model_fields_set}
        for key in given.keys() - kind.model_fields.keys():
            message = f"a step of type {component.type} has no key '{key}'. {suggestion(key, kind.model_fields)}"
            self.faults.append(Fault(f"{at}.{key}", message))
        known = {key: value for key, value in given.items() if key in kind.model_fields}
        return kind(**{**known, "type": component.type})

    def _content(self, given: Step | Component, at: str) -> dict[str, Any]:
        """Code, environment, task and steps of a step, or of a component, as they are to be kept."""
        changes: dict[str, Any] = {}
        if isinstance(given, PipelineStep):
            return {"jobs": self._steps(given.jobs, f"{at}.jobs")} if given.jobs else {}
        if isinstance(given, CommandStep | Component):
            if given.code is not None:
                changes["code"] = self._look(f"{at}.code", self._code, given.code, given.command) or given.code
            if given.environment is not None:
                place = f"{at}.environment"
                found = self._look(place, self._environment, given.environment)
                changes["environment"] = found or given.environment
        if isinstance(given, ParallelStep | Component) and given.task is not None:
            changes["task"] = given.task.model_copy(update=self._task(given.task, f"{at}.task"))
        return changes

    def _task(self, task: ParallelTask, at: str) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if task.code is not None:
            changes["code"] = self._look(f"{at}.code", self._script, task.code, task.entry_script) or task.code
        if task.environment is not None:
            found = self._look(f"{at}.environment", self._environment, task.environment)
            changes["environment"] = found or task.environment
        if task.model is not None:
            changes["model"] = self._look(f"{at}.model", self._model, task.model) or task.model
        return changes

    def _script(self, code: str, script: str | None) -> str:
        folder, kept = self._code_folder(code)
        if script is not None:
            check_script(folder, script)
        return kept

    def _code(self, code: str, command: str | None) -> str:
        folder, kept = self._code_folder(code)
        for script in _scripts_of(command or ""):
            _check_python(folder, script)
        return kept

    def _code_folder(self, code: str) -> tuple[Path, str]:
        """The folder on this machine, and how it is kept: as the version that it is registered as."""
        if (reference := asset_reference(code)) is not None:
            found = cast("Code", self._assets.resolve("code", reference))
            return self._assets.local_path(found), f"azureml:{found.reference}"
        if code.startswith("azureml://"):  # uploaded by a client whose files this machine does not share
            if not self._register:
                return self._assets.local_path(Code(name="code", version="1", path=code)), code
            registered = self._assets.register_code(code, by=self._by)
            return self._assets.local_path(registered), f"azureml:{registered.reference}"
        folder = Path(code.removeprefix("file://").removeprefix("file:")).expanduser()
        if "://" in code or not folder.is_absolute():
            raise InvalidEntityError(f"{code!r} is no absolute path of a folder, and no azureml:<code>:<version>.")
        if not folder.is_dir():
            raise InvalidEntityError(f"{folder} is no folder. Give the folder that the script lies in.")
        if not self._register:
            return folder, code
        return folder, f"azureml:{self._assets.register_code(str(folder), by=self._by).reference}"

    def _environment(self, given: str | Environment) -> str | Environment:
        found = self._assets.declared_environment(given, by=self._by, register=self._register)
        is_known = self._register or (isinstance(given, str) and found.version is not None)
        return f"azureml:{found.reference}" if is_known else found

    def _model(self, given: str | Model) -> str | Model:
        if isinstance(given, Model):
            if not self._register:
                place = self._places.resolve(given.path)
                self._places.stores().check_readable(place.url, place.datastore)
                return given
            return f"azureml:{self._assets.register_unless_known('model', given, by=self._by).reference}"
        return f"azureml:{self._assets.resolve('model', asset_reference(given) or given).reference}"

    def _compute(self, given: str, instances: int) -> None:
        name = compute_name(given)
        compute = cast("Compute", self._registry.resources.get("compute", name))
        if instances > compute.max_instances:
            raise InvalidEntityError(
                f"{instances} instances are asked for, but compute {name} has at most {compute.max_instances}. "
                "Lower resources.instance_count, or raise max_instances of the compute."
            )

    def _pipeline_input(self, given: LiteralValue | InputPort | DataBinding) -> LiteralValue | InputPort | DataBinding:
        value = given_value(given)
        if isinstance(value, DataBinding):
            return self._data(value)
        is_short_form = isinstance(given, InputPort) and given.type in DATA_TYPES and isinstance(value, str)
        if is_short_form and isinstance(given, InputPort):
            return self._data(DataBinding.model_validate({"type": given.type, "path": value, "mode": given.mode}))
        return given

    def _input(self, step: Step, name: str, place: str) -> LiteralValue | DataBinding:
        given, port = step.inputs[name], input_port(step, name)
        text = given.path if isinstance(given, DataBinding) else given
        try:
            if binding_of(text) is not None:
                return given
        except InvalidEntityError:
            return given  # told by ``pipeline_faults``
        if isinstance(given, str) and port is not None and port.type in DATA_TYPES:
            given = DataBinding.model_validate({"type": port.type, "path": given, "mode": port.mode})
        if isinstance(given, str) and port is not None:
            return as_typed(given, port.type)
        return (self._look(place, self._data, given) or given) if isinstance(given, DataBinding) else given

    def _data(self, given: DataBinding) -> DataBinding:
        """The data, its version and type found out; it is there, and can be read."""
        reference = asset_reference(given.path)
        if reference is not None:
            asset = find_data(self._assets, given.path)
            changes = {"path": f"azureml:{asset.reference}", "type": given.type or asset.type}
            self._assets.check_readable(asset)
            return given.model_copy(update=changes)
        place = self._places.resolve(given.path)
        if not _WILD & set(place.uri) and "${{" not in place.uri:
            self._places.stores().check_readable(place.url, place.datastore)
        return given.model_copy(update={"path": place.uri})

    def _output(self, path: str | None) -> None:
        if path is None or "${{" in path:
            return
        place = self._places.resolve(path)
        self._places.stores().check_writable(place.url, place.datastore)


def find_data(assets: Assets, text: str) -> Data | Model:
    """The data asset that an input names; a model is taken too, as its files are data to whoever asks for them.

    Raises:
        NotFoundError: there is neither.
    """
    try:
        return cast("Data", assets.resolve("data", text))
    except NotFoundError as missing:
        try:
            return cast("Model", assets.resolve("model", text))
        except NotFoundError:
            raise missing from None


def compute_name(given: str | None) -> str:
    """The bare name of a compute. ``serverless``, and nothing at all, mean the one that is always there."""
    name = (given or "local").removeprefix("azureml:")
    return "local" if name == "serverless" else name


def _scripts_of(command: str) -> list[str]:
    """Python files that a command runs, as far as its words say."""
    try:
        words = shlex.split(re.sub(r"\$\{\{.*?\}\}", "value", command))
    except ValueError:
        return []
    pairs = itertools.pairwise(words)
    return [script for first, script in pairs if re.fullmatch(r"(.*/)?python[\d.]*", first) and script.endswith(".py")]


def _check_python(folder: Path, script: str) -> None:
    path = folder / script
    if not path.is_file():
        found = ", ".join(sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*.py"))[:10]) or "none"
        raise InvalidEntityError(f"the command runs {script}, which is not in the code folder. Found there: {found}.")
    try:
        ast.parse(path.read_bytes(), filename=script)
    except (SyntaxError, ValueError) as error:
        line, text = getattr(error, "lineno", None), (getattr(error, "text", None) or "").strip()
        message = f"{script}, line {line or '?'}: {getattr(error, 'msg', error)}: {text}"
        raise InvalidEntityError(message) from None
