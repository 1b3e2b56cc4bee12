"""Workspaces: the namespaces of one server."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import StringConstraints

from batchpoint.entities.base import Entity
from batchpoint.errors import InvalidEntityError

_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9_\-]{2,32}$"

WorkspaceName = Annotated[str, StringConstraints(pattern=_PATTERN)]
"""3 to 33 letters, digits, dashes and underscores; the first is a letter or digit. Source: Azure ML workspace names."""

DEFAULT_WORKSPACE = "default"
"""The one that is meant when none is named. It always exists."""


class NamedWorkspace(Entity):
    """A workspace as it is listed: what is in it is told by the operations within it."""

    name: WorkspaceName
    display_name: str | None = None


def workspace_key(name: str) -> str:
    """What a workspace is known by: its name, whose case does not matter. Source: Azure's resource names.

    Raises:
        InvalidEntityError: no workspace can be called so.
    """
    if not re.fullmatch(_PATTERN, name):
        raise InvalidEntityError(
            f"{name!r} cannot be the name of a workspace: names have 3 to 33 letters, digits, dashes and underscores, "
            "and begin with a letter or digit."
        )
    return name.lower()
