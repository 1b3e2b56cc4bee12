"""What all entities share: the base model, names, references such as ``churn:3`` and ``churn@latest``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from batchpoint.errors import InvalidEntityError

AssetName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,254}$")]
"""Letters, digits, dash, underscore and dot; the first is a letter or digit. Source: behaviour of Azure ML assets."""

AssetVersion = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.\-]{0,255}$")]
"""What a reference can name. An empty one means none."""

EndpointName = Annotated[
    str, StringConstraints(min_length=3, max_length=32, pattern=r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
]
"""3 to 32 letters, digits and dashes; first a letter, last not a dash. Source: Azure ML endpoint names."""

DeploymentName = Annotated[
    str, StringConstraints(min_length=3, max_length=32, pattern=r"^[a-zA-Z]([-_a-zA-Z0-9]*[a-zA-Z0-9])?$")
]
"""The same with underscores, which Azure ML took before it forbade them."""

ComputeName = Annotated[str, StringConstraints(min_length=3, max_length=24, pattern=r"^[a-zA-Z][-a-zA-Z0-9]*$")]
"""3 to 24 letters, digits and dashes; the first is a letter. Source: Azure ML compute names."""

DatastoreName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_]{1,255}$")]

JobName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,254}$")]


def retagged(tags: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """The tags with the changes made; None takes one away."""
    return {key: value for key, value in {**tags, **changes}.items() if value is not None}


class Part(BaseModel):
    """A piece of an entity. Unknown keys are errors at every level, so that a typing slip is caught."""

    # Not-a-number and infinity have no place in JSON: once stored they could never be shown again.
    model_config = ConfigDict(extra="forbid", populate_by_name=True, validate_default=False, allow_inf_nan=False)

    def model_post_init(self, _context: Any, /) -> None:
        """Count the ``type`` that names this kind as given: without, what travels would be read as another kind."""
        field = type(self).__pydantic_fields__.get("type")
        if field is not None and get_args(field.annotation) == (field.default,):
            self.model_fields_set.add("type")


class Entity(Part):
    """Something that a person declares: one model is YAML file, REST body, SDK object and stored row."""

    schema_address: str | None = Field(default=None, alias="$schema", exclude=True)
    """Editors write it; nobody reads it."""
    name: str
    description: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    properties: dict[str, str] = Field(default_factory=dict)
    created_at: datetime | None = None
    """When it was first stored, UTC. Set by the server."""
    modified_at: datetime | None = None
    """When it was last changed, UTC. Set by the server."""
    created_by: str | None = None
    """Name of the token that stored it. Set by the server."""

    def body(self) -> dict[str, Any]:
        """The entity as JSON-ready values, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def given(self) -> dict[str, Any]:
        """What was given for it, without defaults: what is not given stays as it is when an entity is stored again."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Asset(Entity):
    """A versioned, immutable entity. Only description, tags and ``archived`` change after it was registered."""

    name: AssetName
    version: AssetVersion | None = None
    """None on a new asset: the registry counts up."""
    archived: bool = False
    """Archived assets are hidden from lists; references to them keep working."""

    @property
    def reference(self) -> str:
        """``name:version``."""
        return f"{self.name}:{self.version}"


AssetKind = Literal["model", "data", "environment", "code", "component"]


@dataclass(frozen=True)
class Reference:
    """A way to point at one asset: ``name:version``, ``name@label`` or ``name`` alone (which means ``@latest``)."""

    name: str
    version: str | None = None
    label: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}:{self.version}"
        return f"{self.name}@{self.label or 'latest'}"


_REFERENCE = re.compile(
    r"^(?:azureml:(?!//))?(?P<name>[a-zA-Z0-9][a-zA-Z0-9_.\-]*)(?::(?P<version>[a-zA-Z0-9_.\-]+)|@(?P<label>[a-zA-Z0-9_\-]+))?$"
)


def parse_reference(text: str) -> Reference:
    """Read ``[azureml:]name[:version|@label]``.

    Raises:
        InvalidEntityError: the text is not a reference.
    """
    match = _REFERENCE.match(text.strip())
    if match is None:
        message = f"{text!r} is not a reference to an asset. Write name:version, name@latest or azureml:name:version."
        raise InvalidEntityError(message)
    return Reference(match["name"], match["version"], match["label"])
