"""A job of type ``command`` → its CommandSpec."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from batchpoint.background.environments import Environments, Interpreter, Tell
from batchpoint.background.step_places import StepPlaces, places_of_step
from batchpoint.entities.assets import Code, Environment
from batchpoint.entities.jobs import Command, Job
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.command_line import filled_command
from batchpoint.scoring.command_spec import CommandSpec
from batchpoint.workspace import Workspace


def build_command_spec(job: Job, *, python: str, code_dir: Path | None, places: StepPlaces) -> CommandSpec:
    """The specification of a command's run. Pure.

    Raises:
        InvalidEntityError: the job has no command, or a binding in it names what the job does not have.
    """
    command = _command_of(job)
    variables = {"AZUREML_ROOT_RUN_ID": job.parent_job_name or job.name}
    if job.experiment_name:
        variables["AZUREML_EXPERIMENT_NAME"] = job.experiment_name
    for key, value in places.values.items():
        side, _, name = key.partition(".")
        variables[f"AZURE_ML_{side.removesuffix('s').upper()}_{name}"] = value
    return CommandSpec(
        job=job.name,
        command=filled_command(command.command, places.values),
        bin_folder=str(Path(python).parent),
        code_dir=str(code_dir) if code_dir else None,
        environment_variables=variables | command.environment_variables,
        timeout=command.timeout,
        fetched_inputs=places.fetched,
        staged_outputs=places.staged,
    )


class CommandPreparation:
    """Finds what a command needs on this machine."""

    def __init__(self, workspace: Workspace, environments: Environments, tell: Tell) -> None:
        self._workspace = workspace
        self._environments = environments
        self._tell = tell

    def prepare(self, job: Job, folder: Path) -> tuple[str, ...]:
        """Write the run's specification into its folder; answers with notices. Raises as ``Launcher.prepare``."""
        command = _command_of(job)
        interpreter = self._interpreter(command)
        code_dir = None
        if command.code is not None:
            assets = self._workspace.assets
            code_dir = assets.local_path(cast("Code", assets.resolve("code", command.code)))
        places = places_of_step(job, folder, self._workspace)
        spec = build_command_spec(job, python=interpreter.python, code_dir=code_dir, places=places)
        folder.mkdir(parents=True, exist_ok=True)
        spec.write(folder)
        if command.instance_count > 1:
            notice = f"The command runs once, on one of its {command.instance_count} instances."
            return (*interpreter.notices, notice)
        return interpreter.notices

    def _interpreter(self, command: Command) -> Interpreter:
        if command.environment is None:
            return self._environments.default()
        found = self._workspace.assets.resolve("environment", command.environment)
        return self._environments.for_environment(cast("Environment", found), tell=self._tell)


def _command_of(job: Job) -> Command:
    if job.command is None:
        raise InvalidEntityError(f"Job {job.name} has no command to run.")
    return job.command
