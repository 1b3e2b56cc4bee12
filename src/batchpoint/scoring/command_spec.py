"""CommandSpec: all that the run of a command needs, already resolved; ``spec.json`` of such a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from batchpoint.scoring.spec import FetchedInput, SpecPart, StagedOutput, write_spec


class CommandSpec(SpecPart):
    """One run of a command, whole."""

    type: Literal["command"] = "command"
    job: str
    command: str
    """For ``sh -c``; nothing in it is left open."""
    bin_folder: str
    """Folder of the environment's interpreter: first on the PATH."""
    code_dir: str | None = None
    """The code as it is registered. The command works in a copy of it."""
    environment_variables: dict[str, str] = Field(default_factory=dict)
    timeout: float | None = None
    """Seconds; None means any time."""
    fetched_inputs: list[FetchedInput] = Field(default_factory=list)
    staged_outputs: list[StagedOutput] = Field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> CommandSpec:
        """Read ``spec.json`` of a run's folder."""
        return cls.model_validate_json((folder / "spec.json").read_bytes())

    def write(self, folder: Path) -> None:
        """Write ``spec.json`` into a run's folder, whole or not at all, readable by its owner alone."""
        write_spec(folder, self)


def is_command(folder: Path) -> bool:
    """Whether the run in this folder is one of a command."""
    return bool(json.loads((folder / "spec.json").read_bytes()).get("type") == "command")
