"""Components: their specification, in which Azure ML's words and ours are nearly the same, and their versions.

What was declared in place comes under one name (``azureml_anonymous``) with a version made of its content. The name
that it was given, if any, is a property of it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from batchpoint.entities.base import Asset
from batchpoint.entities.components import DECLARED_NAME, as_typed, declared_name
from batchpoint.entities.documents import read_body
from batchpoint.entities.pipelines import ANONYMOUS, Component
from batchpoint.operations.pipeline_deployments import registered_pipeline
from batchpoint.server.auth import Operator
from batchpoint.server.azureml.assets import AssetRoutes, Spoken
from batchpoint.server.azureml.mapping import DESCRIBED, DURATION, TEXTS, Field, Form, from_wire, to_wire
from batchpoint.server.azureml.pipelines import (
    MINI_BATCH_SIZE,
    RESOURCES,
    SPLITTING,
    prefixed,
    steps_form,
    task_words,
    text_of,
    whole,
    with_options,
)
from batchpoint.server.azureml.wire import Scope, Scoped, ScopedWork, WireBody, name_in
from batchpoint.server.context import Shared

router = APIRouter(tags=["azureml"], include_in_schema=False)


class _Components(Spoken):
    """How the wire speaks of components."""

    def read(self, scope: Scope, name: str, version: str, body: Mapping[str, Any]) -> Asset:
        """The component that a body declares. Raises ``InvalidEntityError``."""
        found = with_options(from_wire((*DESCRIBED, *self.content(scope)), body), is_whole=True)
        given = from_wire((Field("name", f"{_SPEC}.name"),), body).get("name", name)
        if given != name:
            found["properties"] = {**found.get("properties", {}), DECLARED_NAME: given}
        return read_body(Component, {**found, "name": name, "version": version})

    def write(self, scope: Scope, asset: Asset) -> dict[str, Any]:
        """A version as a resource."""
        found = super().write(scope, asset)
        component = cast("Component", asset)
        found["properties"]["properties"] = {
            key: value for key, value in component.properties.items() if key != DECLARED_NAME
        }
        # The client reads what describes a component here alone.
        described = to_wire((Field("description", "description"), Field("tags", "tags", TEXTS)), component.body())
        found["properties"]["componentSpec"] = {
            "name": declared_name(component),
            "version": component.version,
            "is_deterministic": component.is_deterministic,
            "inputs": {},
            "outputs": {},
            **described,
            **({"environment": _NO_ENVIRONMENT} if component.type == "command" else {}),
            **found["properties"]["componentSpec"],
        }
        return found

    def is_same(self, scope: Scope, one: Asset, other: Asset) -> bool:
        """As of every asset, but both as they come back: with the defaults that are shown, numbers as text and read.

        Of what was declared in place the version tells the content.
        """
        return one.name == ANONYMOUS or super().is_same(
            scope, self._sent_back(scope, one), self._sent_back(scope, other)
        )

    def _sent_back(self, scope: Scope, asset: Asset) -> Asset:
        return self.read(scope, asset.name, str(asset.version), self.write(scope, asset))


class _Routes(AssetRoutes):
    """The routes of components."""

    def put_version(
        self, name: str, version: str, body: WireBody, scope: Scoped, caller: Operator, work: ScopedWork, shared: Shared
    ) -> JSONResponse:
        """Register a version; or make one of what a job ran, under a version that is not the one that was asked for.

        The client asks for version 1 whatever the job is, and goes on with the id that it is answered.
        """
        job = from_wire((Field("job", f"{_SPEC}.sourceJobId", Form(read=name_in)),), body).get("job")
        if job is None:
            return super().put_version(name, version, body, scope, caller, work, shared)
        pipeline = work.pipelines.from_job(job)
        made = registered_pipeline(work.assets, work.pipelines, pipeline, name, by=caller.name)
        return JSONResponse(self.spoken.write(scope, made))


_SPEC = "properties.componentSpec"
_NO_ENVIRONMENT = "azureml:none"
"""What is said of a command without an environment: the client wants to be told some."""


def _words(scope: Scope) -> tuple[Field, ...]:
    spec = (
        Field("type", "type"),
        Field("display_name", "display_name"),
        Field("is_deterministic", "is_deterministic"),
        Field("inputs", "inputs", _INPUTS),
        Field("outputs", "outputs", _OUTPUTS),
        Field("command", "command"),
        Field("code", "code", prefixed(scope, "codes")),
        Field("environment", "environment", prefixed(scope, "environments")),
        Field("environment_variables", "environment_variables", TEXTS),
        *RESOURCES,
        Field("limits.timeout", "limits.timeout", Form(read=lambda given: int(DURATION.read(given)))),
        Field("distribution", "distribution"),
        Field("mini_batch_size", "mini_batch_size", Form(str, MINI_BATCH_SIZE.read)),
        *SPLITTING,
        *task_words(scope),
        Field("jobs", "jobs", steps_form(scope)),
    )
    return tuple(Field(field.ours, f"{_SPEC}.{field.wire}", field.form) for field in spec)


def _read_input(given: Any) -> Any:
    """An input as it is declared: the client writes its numbers as text."""
    if not isinstance(given, Mapping):
        return given
    read = from_wire(_INPUT, given)
    wanted = str(read.get("type"))
    if "default" in read:
        read["default"] = as_typed(read["default"], wanted)
    if "enum" in read:
        read["enum"] = [as_typed(value, wanted) for value in read["enum"]]
    return read


def _write_input(given: Mapping[str, Any]) -> dict[str, Any]:
    said = to_wire(_INPUT, given)
    return {key: text_of(value) if key in {"default", "min", "max"} else value for key, value in said.items()}


_INPUT = (
    Field("type", "type"),
    Field("description", "description"),
    Field("optional", "optional"),
    Field("default", "default"),
    Field("min", "min", Form(whole)),
    Field("max", "max", Form(whole)),
    Field("enum", "enum"),
    Field("path", "path"),
    Field("mode", "mode"),
)
_OUTPUT = (Field("type", "type"), Field("description", "description"), Field("mode", "mode"))
_INPUTS = Form(
    lambda ports: {name: _write_input(port) for name, port in ports.items()},
    lambda ports: {name: _read_input(port) for name, port in ports.items()},
)
_OUTPUTS = Form(
    lambda ports: {name: to_wire(_OUTPUT, port) for name, port in ports.items()},
    lambda ports: {
        name: from_wire(_OUTPUT, port) if isinstance(port, Mapping) else port for name, port in ports.items()
    },
)

_Routes(_Components("component", "components", _words)).add_to(router)
