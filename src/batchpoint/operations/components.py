"""What makes a component sound: its code, environment, model and inner components are registered or found."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from batchpoint.entities.assets import Environment, Model
from batchpoint.entities.pipelines import CommandStep, Component, ParallelStep, ParallelTask, PipelineStep, Step
from batchpoint.operations.places import asset_reference

if TYPE_CHECKING:
    from batchpoint.entities.base import AssetKind
    from batchpoint.operations.assets import Assets

_SAID_ABOUT_IT = frozenset(
    {"name", "version", "description", "tags", "properties", "display_name", "archived"}
    | {"created_at", "modified_at", "created_by"}
)
"""Keys that do not change what a component does."""


def registered_component(assets: Assets, component: Component, *, by: str | None) -> Component:
    """The component with references to versions alone: what is declared in place, or is a path, is registered.

    Raises:
        InvalidEntityError: a part is not what it is declared to be.
        NotFoundError: it refers to something that does not exist.
        InputError: nothing lies at a local path.
    """
    changes = _parts(assets, component, by)
    if component.jobs:
        changes["jobs"] = {name: registered_step(assets, step, by=by) for name, step in component.jobs.items()}
    return component.model_copy(update=changes)


def registered_step(assets: Assets, step: Step, *, by: str | None) -> Step:
    """The same for a step; a component in place stays in place. Raises as ``registered_component``."""
    changes = {} if isinstance(step, PipelineStep) else _parts(assets, step, by)
    if isinstance(step.component, Component):
        changes["component"] = registered_component(assets, step.component, by=by)
    elif step.component is not None:
        changes["component"] = _reference(assets, "component", step.component)
    if isinstance(step, PipelineStep) and step.jobs:
        changes["jobs"] = {name: registered_step(assets, inner, by=by) for name, inner in step.jobs.items()}
    return step.model_copy(update=changes)


def content_hash(component: Component) -> str:
    """A hash of all that decides what the component does."""
    body = {key: value for key, value in component.body().items() if key not in _SAID_ABOUT_IT}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _parts(assets: Assets, holder: Component | CommandStep | ParallelStep, by: str | None) -> dict[str, Any]:
    """The code, environment and task of whoever has them, as they are to be stored."""
    changes: dict[str, Any] = {}
    if not isinstance(holder, ParallelStep):
        changes |= _code_and_environment(assets, holder, by)
    task = None if isinstance(holder, CommandStep) else holder.task
    if task is not None:
        inner = _code_and_environment(assets, task, by)
        if isinstance(task.model, Model):
            inner["model"] = f"azureml:{assets.register_unless_known('model', task.model, by=by).reference}"
        elif task.model is not None:
            inner["model"] = _reference(assets, "model", task.model)
        changes["task"] = task.model_copy(update=inner)
    return changes


def _code_and_environment(
    assets: Assets, holder: Component | CommandStep | ParallelTask, by: str | None
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if holder.code is not None:
        reference = asset_reference(holder.code)
        code = assets.resolve("code", reference) if reference else assets.register_code(holder.code, by=by)
        changes["code"] = f"azureml:{code.reference}"
    if isinstance(holder.environment, Environment):
        registered = assets.register_unless_known("environment", holder.environment, by=by)
        changes["environment"] = f"azureml:{registered.reference}"
    elif holder.environment is not None:
        changes["environment"] = _reference(assets, "environment", holder.environment)
    return changes


def _reference(assets: Assets, kind: AssetKind, given: str) -> str:
    return f"azureml:{assets.resolve(kind, given).reference}"
