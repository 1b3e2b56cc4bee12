"""What YAML files and folders declare, document by document, with each file that declares nothing told apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from batchpoint.client.changes import Declaration, asset_reference, without_repetition
from batchpoint.client.files import absolute, from_document, read_text
from batchpoint.entities.assets import Code, Data, Environment, Model
from batchpoint.entities.base import Asset
from batchpoint.entities.components import as_component
from batchpoint.entities.documents import Document, Kind, read_documents
from batchpoint.entities.endpoints import BatchDeployment, ModelMap
from batchpoint.entities.local_paths import is_local, local_paths, looks_like_a_path
from batchpoint.entities.pipeline_deployments import PipelineDeployment
from batchpoint.entities.pipelines import ANONYMOUS, Component
from batchpoint.entities.preview_endpoints import is_preview_endpoint, taken_apart
from batchpoint.entities.schedules import Schedule
from batchpoint.errors import InvalidEntityError

_FOR_ONE = re.compile(r"^(?P<kind>[a-z]+)/(?P<name>[^:=]+):(?P<assignment>.+)$", re.DOTALL)
"""``deployment/churn/blue:settings.mini_batch_size=20``."""


class Addresses(Protocol):
    """Tells where local content lies once it is stored; ``LocalFiles`` does."""

    def expected_address(self, kind: Kind, local: str) -> str:
        """The address of a file or folder."""

    def expected_code(self, local: str) -> str:
        """The reference to a folder of code."""

    def expected_place(self, local: str) -> str:
        """What the server is told for a path."""


@dataclass(frozen=True)
class Solution:
    """Everything that some files declare together."""

    declarations: tuple[Declaration, ...]
    skipped: tuple[str, ...] = ()
    """Files of the folders that declare nothing."""


@dataclass(frozen=True)
class _Written:
    document: Document
    path: Path
    kind: Kind | None


def read_solution(paths: Iterable[str | Path], assignments: Iterable[str] = ()) -> Solution:
    """What the files declare, and the files in the folders and below them.

    In a folder, hidden folders and folders that a declaration points to (code, models, data) are not looked into, and
    files that declare nothing are skipped; a file that is named itself has to declare something. What a deployment
    declares in place comes out as a declaration of its own.

    Args:
        paths: files and folders.
        assignments: ``key=value``, as ``--set`` takes them; where several things are declared, with what is meant
            before it: ``kind/name:key=value``.

    Raises:
        InvalidEntityError: with every fault of every file; or nothing is declared at all.
    """
    written, skipped = _written(paths)
    given = _by_document(written, list(assignments))
    declarations, faults = [], []
    for position, each in enumerate(written):
        try:
            declarations += _declarations(each, given.get(position, []))
        except InvalidEntityError as fault:
            faults.append(fault)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise InvalidEntityError("\n".join(map(str, faults)), problems=[str(fault) for fault in faults])
    return Solution(tuple(without_repetition(declarations)), tuple(skipped))


def placed(declaration: Declaration, files: Addresses) -> Declaration:
    """The declaration with what is expected to be stored: local content by the address that it gets. Sends nothing.

    Raises:
        InvalidEntityError: a local path does not exist.
    """
    entity = declaration.entity
    try:
        if isinstance(entity, Model | Data | Code) and is_local(entity.path):
            address = files.expected_address(declaration.kind, entity.path)
            return replace(declaration, expected=entity.model_copy(update={"path": address}))
        if isinstance(entity, BatchDeployment) and (code := entity.code_configuration) and _is_folder(code.code):
            reference = files.expected_code(code.code)
            held = code.model_copy(update={"code": reference})
            return replace(declaration, expected=entity.model_copy(update={"code_configuration": held}))
        if isinstance(entity, Component):
            return _placed_component(declaration, entity, files)
        if isinstance(entity, Schedule):
            return _placed_schedule(declaration, entity, files)
    except InvalidEntityError as fault:
        raise InvalidEntityError(f"{declaration.place}: {declaration.kind} {declaration.name}: {fault}") from None
    return declaration


def _placed_component(declaration: Declaration, component: Component, files: Addresses) -> Declaration:
    document = Document(value=component.given(), name=declaration.place)
    found = [each for each in local_paths("component", document.value) if each.holds == "path"]
    for each in found:
        is_code = each.key[-1] == "code"
        address = files.expected_code(each.path) if is_code else files.expected_address("model", each.path)
        document = document.with_value(each.key, address)
    return replace(declaration, expected=document.entity("component")) if found else declaration


def _placed_schedule(declaration: Declaration, schedule: Schedule, files: Addresses) -> Declaration:
    """What a pipeline in place points to is handed over with it; what a schedule reads is looked for each time."""
    document = Document(value=schedule.given(), name=declaration.place)
    found = [each for each in local_paths("schedule", document.value) if each.holds == "path" and "job" in each.key]
    for each in found:
        document = document.with_value(each.key, files.expected_place(each.path))
    return replace(declaration, expected=document.entity("schedule")) if found else declaration


def _written(paths: Iterable[str | Path]) -> tuple[list[_Written], list[str]]:
    found: list[_Written] = []
    skipped: list[str] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found += [_Written(each, path, _kind_of_file(each)) for each in _documents(path)]
            continue
        in_folder = [_read(each, document) for each in _yaml_files(path) for document in _documents(each)]
        pointed = _pointed_to(in_folder)
        for each in in_folder:
            if any(each.path.absolute().is_relative_to(folder) for folder in pointed):
                continue
            if each.kind in (None, "job"):  # a job is started, not declared
                skipped.append(str(each.path))
            else:
                found.append(each)
    if not found:
        tried = ", ".join(map(str, paths))
        raise InvalidEntityError(
            f"{tried} declares nothing. Give YAML files with '$schema' or 'type', or their folder."
        )
    return found, skipped


def _kind_of_file(document: Document) -> Kind:
    if (kind := document.kind()) == "job":
        message = f"{document.name} is a job, which is started and not applied: 'batchpoint job create --file' does it."
        raise InvalidEntityError(message)
    return kind


def _yaml_files(folder: Path) -> list[Path]:
    files = (each for each in folder.rglob("*") if each.suffix in (".yml", ".yaml") and each.is_file())
    return sorted(each for each in files if not any(part.startswith(".") for part in each.relative_to(folder).parts))


def _documents(path: Path) -> list[Document]:
    return read_documents(read_text(path), name=str(path))


def _read(path: Path, document: Document) -> _Written:
    """A document of a folder, which may be none of ours (a conda file), unless its ``$schema`` says that it is."""
    try:
        return _Written(document, path, document.kind())
    except InvalidEntityError:
        if "azuremlschemas" in str(document.value.get("$schema", "")):
            raise
        return _Written(document, path, None)


def _pointed_to(written: Sequence[_Written]) -> set[Path]:
    """Files and folders that declarations point to; not those that they lie in themselves."""
    found = set()
    for each in written:
        if each.kind is None:
            continue
        folder = each.path.parent.absolute()
        for local in local_paths(each.kind, each.document.value):
            path = Path(absolute(local.path, folder))
            if not folder.is_relative_to(path):
                found.add(path)
    return found


def _by_document(written: Sequence[_Written], assignments: Iterable[str]) -> dict[int, list[str]]:
    """The assignments by the position of the document that they are for."""
    result: dict[int, list[str]] = {}
    for text in assignments:
        one = _FOR_ONE.match(text)
        fitting = [
            position
            for position, each in enumerate(written)
            if one is None or (each.kind == one["kind"] and one["name"] in _names(each.document.value))
        ]
        if len(fitting) != 1:
            known = ", ".join(f"{each.kind}/{each.document.value.get('name')}" for each in written)
            raise InvalidEntityError(
                f"--set {text!r} fits {len(fitting)} of the declarations. Write KIND/NAME:KEY=VALUE with one of "
                f"these: {known}."
            )
        result.setdefault(fitting[0], []).append(one["assignment"] if one else text)
    return result


def _names(value: dict[str, Any]) -> set[str]:
    name = str(value.get("name"))
    return {name, f"{value.get('endpoint_name')}/{name}", f"{name}:{value.get('version')}"}


def _declarations(written: _Written, assignments: Sequence[str]) -> list[Declaration]:
    assert written.kind is not None, "those without a kind were skipped"
    folder = written.path.parent.absolute()
    if written.kind == "endpoint" and is_preview_endpoint(written.document.value):
        return _with_its_deployments(written, assignments)
    entity = from_document(written.document, written.kind, folder=folder, assignments=assignments)
    place = str(written.path)
    if isinstance(entity, BatchDeployment):
        return _taken_out(entity, place)
    if isinstance(entity, PipelineDeployment):
        return _pipeline_taken_out(entity, place)
    return [Declaration(written.kind, entity, place, entity)]


def _with_its_deployments(written: _Written, assignments: Sequence[str]) -> list[Declaration]:
    """An endpoint in the words of Azure ML's preview, and the deployments that stand in the same file."""
    endpoint, deployments = taken_apart(written.document.with_settings(assignments))
    parts = [replace(written, document=each, kind="deployment") for each in deployments]
    own = _declarations(replace(written, document=endpoint), ())
    return own + [declaration for part in parts for declaration in _declarations(part, ())]


def _taken_out(deployment: BatchDeployment, place: str) -> list[Declaration]:
    """What a deployment declares in place, and the deployment that refers to it."""
    found: list[Declaration] = []
    changes: dict[str, str] = {}
    model = deployment.model
    if isinstance(model, str) and _is_address(model):
        is_mlflow = Path(model, "MLmodel").is_file()
        kind = "mlflow_model" if is_mlflow else "custom_model"
        model = Model(name=f"{deployment.endpoint_name}-{deployment.name}", path=model, type=kind)
    if isinstance(model, Model):
        if "type" not in model.model_fields_set and Path(model.path, "MLmodel").is_file():
            model = model.model_copy(update={"type": "mlflow_model"})
        found.append(Declaration("model", model, place, model, in_place=True))
        changes["model"] = _reference_to(model)
    if isinstance(environment := deployment.environment, Environment):
        found.append(Declaration("environment", environment, place, environment, in_place=True))
        changes["environment"] = _reference_to(environment)
    deployment = deployment.model_copy(update=changes)
    if deployment.batchpoint.model_map is not None:
        parts, model_map = _taken_out_of_map(deployment.batchpoint.model_map, deployment)
        found += [Declaration(kind, part, place, part, in_place=True) for kind, part in parts]
        options = deployment.batchpoint.model_copy(update={"model_map": model_map})
        deployment = deployment.model_copy(update={"batchpoint": options})
    return [*found, Declaration("deployment", deployment, place, deployment)]


def _taken_out_of_map(
    model_map: ModelMap, deployment: BatchDeployment
) -> tuple[list[tuple[Literal["model", "data"], Model | Data]], ModelMap]:
    """The same for what a model map finds on this machine; the names are those that the server would give."""
    name = f"{deployment.endpoint_name}-{deployment.name}"
    found: list[tuple[Literal["model", "data"], Model | Data]] = []
    changes: dict[str, str] = {}
    if model_map.folder is not None and _is_folder(model_map.folder):
        found.append(("model", Model(name=f"{name}-models", path=model_map.folder)))
        changes["folder"] = f"azureml:{name}-models"
    if model_map.mapping is not None and _is_folder(model_map.mapping):
        found.append(("data", Data(name=f"{name}-models", type="uri_file", path=model_map.mapping)))
        changes["mapping"] = f"azureml:{name}-models"
    default = model_map.default_model
    if isinstance(default, str) and looks_like_a_path(default):
        is_mlflow = Path(default, "MLmodel").is_file()
        default = Model(name=f"{name}-default", path=default, type="mlflow_model" if is_mlflow else "custom_model")
    if isinstance(default, Model):
        found.append(("model", default))
        changes["default_model"] = _reference_to(default)
    return found, model_map.model_copy(update=changes)


def _pipeline_taken_out(deployment: PipelineDeployment, place: str) -> list[Declaration]:
    """The component of a pipeline deployment, and the deployment that refers to it."""
    name, component, settings = (
        f"{deployment.endpoint_name}-{deployment.name}",
        deployment.component,
        deployment.settings,
    )
    if isinstance(deployment.job_definition, str):
        message = f"{place}: a job_definition that names a job cannot be compared. Give the component or the pipeline."
        raise InvalidEntityError(message)
    if deployment.job_definition is not None:
        component = as_component(deployment.job_definition, name)
        own = settings.model_dump(exclude_unset=True)
        settings = deployment.job_definition.settings.model_copy(update=own)
    if not isinstance(component, Component):
        return [Declaration("deployment", deployment, place, deployment)]
    if component.name == ANONYMOUS:
        component = component.model_copy(update={"name": name})
    changes = {"component": _reference_to(component), "job_definition": None, "settings": settings}
    referring = deployment.model_copy(update=changes)
    return [
        Declaration("component", component, place, component, in_place=True),
        Declaration("deployment", referring, place, referring),
    ]


def _reference_to(asset: Asset) -> str:
    return f"azureml:{asset.reference}" if asset.version else f"azureml:{asset.name}"


def _is_address(model: str) -> bool:
    return looks_like_a_path(model) or ("://" in model and "/versions/" not in model and "/labels/" not in model)


def _is_folder(code: str) -> bool:
    """Whether the value of ``code:`` is a folder of this machine and not a reference."""
    if code.startswith(("/", "~", ".", "file:")):
        return True
    try:
        asset_reference(code)
    except InvalidEntityError:
        return is_local(code)
    return False
