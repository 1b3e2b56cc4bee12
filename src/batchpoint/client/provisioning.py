"""Provision: containers with their files, a compute, a published pipeline and its schedule, found or created.

Every step looks before it makes, so that a second run makes nothing. How long each step took is written down as it is
done; a run that is ended in the middle leaves the steps that it did not do as ``Incomplete``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from batchpoint.content import NEVER_CODE, hash_content, walk
from batchpoint.entities.assets import Data, Environment
from batchpoint.entities.base import Entity
from batchpoint.entities.pipelines import CommandStep, DataBinding, OutputBinding, Pipeline, PipelineSettings
from batchpoint.entities.provisioning import Solution, Upload
from batchpoint.entities.resources import Datastore
from batchpoint.entities.schedules import Schedule, ScheduledJob
from batchpoint.entities.triggers import RecurrenceTrigger
from batchpoint.errors import InvalidEntityError, NotFoundError

if TYPE_CHECKING:
    from batchpoint.client import Client
    from batchpoint.client.assets import Assets
    from batchpoint.entities.pipeline_deployments import PublishedPipeline
    from batchpoint.entities.resources import Compute

E = TypeVar("E", bound=Entity)

STEPS = ("Context", "Workspace", "Containers", "FileUpload", "Compute", "DataReferences", "Pipeline", "Schedule")

CANCEL_SECONDS = 60.0
"""How long teardown waits for runs that it cancels."""


class Item(NamedTuple):
    """One thing that was looked for."""

    state: Literal["exists", "created", "updated", "deleted", "gone"]
    kind: str
    name: str
    note: str = ""


Told = Callable[[Item], None]


class CreationLog:
    """How long each step took, as a JSON file that is true at any time, and a line in ``Overview.csv`` at the end."""

    def __init__(self, folder: Path, info: Mapping[str, Any]) -> None:
        now = datetime.now(UTC)
        self.folder = folder.absolute()
        self._overview = folder / "Overview.csv"
        self.path = folder / "BatchScoringLogs" / f"{now:%Y-%m-%dT%H%M%S.%fZ}.log"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._started = time.monotonic()
        self._info = dict(info)
        self._steps: dict[str, float | str] = dict.fromkeys(STEPS, "Incomplete")
        self._write()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note how long the block took, once it has ended well."""
        started = time.monotonic()
        yield
        self._steps[name] = round(time.monotonic() - started, 3)
        self._write()

    def add(self, **info: Any) -> None:
        """More that is to be known about the run."""
        self._info |= info
        self._write()

    def end(self) -> None:
        """Write the line of the overview."""
        self._write()
        is_new = not self._overview.exists()
        with self._overview.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(["type", "path", "seconds"])
            writer.writerow(["BatchScoring", self.path, self._seconds()])

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)

    def _write(self) -> None:
        body = {"type": "BatchScoring", "total_runtime": self._seconds(), "info": self._info, "steps": self._steps}
        draft = self.path.with_suffix(".partial")
        draft.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
        draft.replace(self.path)


class Provisioner:
    """Carries out one configuration on one server. The data reference of a datastore is called as it, with ``ref``."""

    def __init__(self, client: Client, solution: Solution, home: Path, told: Told) -> None:
        self._client = client
        self._given = solution
        self._root = solution.container_root or str(home / "containers")
        self._told = told

    def provision(self, log: CreationLog) -> tuple[PublishedPipeline, Schedule]:
        """Find or create everything, in order; answers with the published pipeline and its schedule.

        Raises:
            InvalidEntityError: the script or a data file does not exist; nothing was made then.
            BatchpointError: whatever the server refused; what was made until then stays, and is found by the next run.
        """
        with log.step("Context"):
            script, files = self._local_files()
        with log.step("Workspace"):
            self._find_server(log)
        with log.step("Containers"):
            for datastore, container in self._given.containers.items():
                self._container(datastore, container)
        with log.step("FileUpload"):
            for datastore, paths in files.items():
                self._upload(datastore, paths)
        with log.step("Compute"):
            self._compute()
        with log.step("DataReferences"):
            references = {datastore: self._reference(datastore) for datastore in self._given.containers}
        with log.step("Pipeline"):
            left_out = {log.folder, *(path for paths in files.values() for path in paths)}
            pipeline = self._pipeline(script, references, self._environment())
            published = self._publish(pipeline, str(script.parent), _hash_of_code(script.parent, left_out))
        with log.step("Schedule"):
            schedule = self._schedule()
        log.add(pipeline=published.endpoint, schedule=schedule.name)
        return published, schedule

    def remove(self) -> None:
        """Take away what ``provision`` makes, once its runs were canceled. Files of the containers stay."""
        client, given = self._client, self._given
        self._cancel_runs()
        self._gone("schedule", given.schedule_name, lambda: client.schedules.delete(given.schedule_name, force=True))
        self._gone("pipeline", given.pipeline_name, lambda: client.pipelines.delete(given.pipeline_name))
        for name in (f"{datastore}ref" for datastore in given.containers):
            self._gone("data", name, partial(self._archive, client.data, name), "archived")
        if given.packages:
            name = self._environment_name
            self._gone("environment", name, partial(self._archive, client.environments, name), "archived")
        self._gone("compute", given.compute.name, lambda: client.computes.delete(given.compute.name))
        for name in given.containers:
            self._gone("datastore", name, partial(client.datastores.delete, name), "its files stay")

    def _local_files(self) -> tuple[Path, dict[str, list[Path]]]:
        """The script, and for each datastore the files that belong into it."""
        script = Path(self._given.script_folder, self._given.script).absolute()
        files = {upload.datastore: _files_of(upload) for upload in self._given.uploads}
        wanted = [script, *(path for paths in files.values() for path in paths)]
        missing = [f"{path} does not exist." for path in wanted if not path.is_file()]
        missing += [f"{upload.folder} holds no files." for upload in self._given.uploads if not files[upload.datastore]]
        if missing:
            raise InvalidEntityError("\n  ".join(["Nothing was made:", *missing]))
        return script, files

    def _find_server(self, log: CreationLog) -> None:
        server = self._client.server()
        log.add(server=self._client.url, version=server.get("version"))
        if not server.get("shares_files") and not self._given.container_root:
            message = "The server is another machine. Give container_root: a folder of it that the containers lie in."
            raise InvalidEntityError(message)
        self._say("exists", "workspace", self._given.workspace or str(server.get("id")), self._client.url)

    def _container(self, name: str, container: str) -> None:
        path = f"{self._root.rstrip('/')}/{container}"
        known = _found(lambda: self._client.datastores.get(name))
        if known is not None:
            differs = "" if known.path == path else f"at {known.path}, not {path}"
            self._say("exists", "datastore", name, differs)
            return
        self._client.datastores.create_or_update(Datastore(name=name, type="local", path=path))
        self._say("created", "datastore", name, path)
        if name != self._given.output:
            return
        with TemporaryDirectory() as folder:
            # A folder that nothing was written to is not there yet, and could not be referred to.
            mark = Path(folder, ".container")
            mark.write_text(f"{name}\n")
            self._client.datastores.upload(name, mark, mark.name)

    def _upload(self, datastore: str, files: list[Path]) -> None:
        there = {each["path"]: each["size"] for each in self._client.datastores.files(datastore)}
        for file in files:
            state: Literal["exists", "created", "updated"] = "created"
            if file.name in there:
                state = "exists" if self._is_same(datastore, file, there[file.name]) else "updated"
            if state != "exists":
                self._client.datastores.upload(datastore, file, file.name)
            self._say(state, "file", file.name)

    def _is_same(self, datastore: str, file: Path, size: int) -> bool:
        """Whether the container's file of that name has the same bytes; those of another size are not fetched."""
        if file.stat().st_size != size:
            return False
        with TemporaryDirectory() as folder:
            stored = self._client.datastores.download(datastore, file.name, Path(folder, file.name))
            return hash_content(stored) == hash_content(file)

    def _compute(self) -> None:
        asked = self._given.compute
        known = _found(lambda: self._client.computes.get(asked.name))
        if known is None:
            self._client.computes.create_or_update(asked)
            self._say("created", "compute", asked.name)
            return
        differs = "" if _said(known) == _said(asked) else f"{_said(known)}, not {_said(asked)}: counts at creation only"
        self._say("exists", "compute", known.name, differs)

    @property
    def _environment_name(self) -> str:
        return f"{self._given.pipeline_name}_environment"

    def _environment(self) -> str | None:
        """The reference of the environment with the packages; None where there are none to add."""
        name, packages = self._environment_name, list(self._given.packages)
        if not packages:
            return None
        asked, has = self._given.python_version, str(self._client.server().get("python"))
        note = "" if f"{has}.".startswith(f"{asked}.") or not asked else f"steps run under Python {has}, not {asked}"
        versions = self._client.environments.list(name, archived="include")
        known = next((each for each in versions if each.pip_requirements == packages), None)
        if known is not None:
            if known.archived:
                self._client.environments.restore(name, known.version)
            self._say("updated" if known.archived else "exists", "environment", known.reference, note)
            return known.reference
        tags = {"python_version": asked} if asked else {}
        declared = Environment(name=name, pip_requirements=packages, tags=tags)
        stored = self._client.environments.create_or_update(declared)
        self._say("created", "environment", stored.reference, note)
        return stored.reference

    def _reference(self, datastore: str) -> Data:
        name, path = f"{datastore}ref", f"azureml://datastores/{datastore}/paths/"
        versions = self._client.data.list(name, archived="include")
        known = next((each for each in versions if each.path.rstrip("/") == path.rstrip("/")), None)
        if known is not None:
            if known.archived:
                self._client.data.restore(name, known.version)
            self._say("updated" if known.archived else "exists", "data", known.reference)
            return known
        stored = self._client.data.create_or_update(Data(name=name, type="uri_folder", path=path))
        self._say("created", "data", stored.reference)
        return stored

    def _pipeline(self, script: Path, references: Mapping[str, Data], environment: str | None) -> Pipeline:
        given = self._given
        said = {"environment": f"azureml:{environment}"} if environment else {}
        inputs = {
            name: DataBinding(type="uri_folder", path=f"azureml:{references[datastore].reference}")
            for name, datastore in given.inputs.items()
        }
        steps = {
            name: CommandStep(
                command=" ".join([f'python "{script.name}"', *(f'"{each}"' for each in arguments)]),
                code=str(script.parent),
                inputs=dict(inputs),
                outputs={"result": OutputBinding()},
                is_deterministic=False,  # each run is to look at the files anew
                **said,
            )
            for name, arguments in given.steps.items()
        }
        settings = PipelineSettings(
            default_compute=f"azureml:{given.compute.name}", default_datastore=f"azureml:{given.output}"
        )
        return Pipeline(experiment_name=given.experiment, settings=settings, jobs=dict(steps))

    def _publish(self, pipeline: Pipeline, code: str, content: str) -> PublishedPipeline:
        """The pipeline under its name; its version is a hash of what it was made from: the same is not made again."""
        name = self._given.pipeline_name
        body = json.dumps(pipeline.body(), sort_keys=True).replace(code, content)
        version = hashlib.sha256(body.encode()).hexdigest()[:12]
        known = _found(lambda: self._client.pipelines.get(name))
        if known is not None and known.version == version:
            if known.status == "Active":
                self._say("exists", "pipeline", name)
                return known
            self._say("updated", "pipeline", name, "enabled")
            return self._client.pipelines.enable(name)
        published = self._client.pipelines.publish(
            name, pipeline, version=version, experiment_name=self._given.experiment
        )
        self._say("updated" if known else "created", "pipeline", name)
        return published

    def _schedule(self) -> Schedule:
        """Without a start time, so that the first run is made at once."""
        given = self._given
        trigger = RecurrenceTrigger(frequency=given.frequency, interval=given.interval)
        plan = ScheduledJob(type="pipeline", published_pipeline=given.pipeline_name)
        known = _found(lambda: self._client.schedules.get(given.schedule_name))
        if known is not None and _is_alike(known, trigger, plan):
            self._say("exists", "schedule", known.name)
            return known
        stored = self._client.schedules.create_or_update(
            Schedule(name=given.schedule_name, trigger=trigger, create_job=plan, is_enabled=True)
        )
        self._say("updated" if known else "created", "schedule", stored.name)
        return stored

    def _cancel_runs(self) -> None:
        given = self._given
        runs: list[Any] = []
        with suppress(NotFoundError):
            runs += [self._client.jobs.get(run["Id"]) for run in self._client.pipelines.runs(given.pipeline_name)]
        runs += self._client.jobs.list(schedule=given.schedule_name)
        for job in {each.name: each for each in runs}.values():
            if not job.is_finished:
                job.cancel()
                job.wait(CANCEL_SECONDS, raise_on_failure=False)
                self._say("deleted", "run", job.name, "canceled")

    def _archive(self, assets: Assets[Any], name: str) -> None:
        assets.get(name)  # there is none when all are archived
        assets.archive(name)

    def _gone(self, kind: str, name: str, deed: Callable[[], object], note: str = "") -> None:
        try:
            deed()
        except NotFoundError:
            self._say("gone", kind, name)
        else:
            self._say("deleted", kind, name, note)

    def _say(
        self, state: Literal["exists", "created", "updated", "deleted", "gone"], kind: str, name: str, note: str = ""
    ) -> None:
        self._told(Item(state, kind, name, note))


def _found(get: Callable[[], E]) -> E | None:
    try:
        return get()
    except NotFoundError:
        return None


def _hash_of_code(folder: Path, left_out: set[Path]) -> str:
    """Hash of a folder of code. Logs and data that lie in it as well are left out: they change with every run."""
    digest = hashlib.sha256()
    for name, path in walk(folder, NEVER_CODE):
        if left_out.isdisjoint((path, *path.parents)):
            digest.update(f"{name}\0{hash_content(path)}\0".encode())
    return digest.hexdigest()


def _is_alike(known: Schedule, trigger: RecurrenceTrigger, plan: ScheduledJob) -> bool:
    at, job = known.trigger, known.create_job
    return (
        isinstance(at, RecurrenceTrigger)
        and (at.frequency, at.interval) == (trigger.frequency, trigger.interval)
        and isinstance(job, ScheduledJob)
        and job.published_pipeline == plan.published_pipeline
        and known.is_enabled
    )


def _files_of(upload: Upload) -> list[Path]:
    folder = Path(upload.folder).absolute()
    if upload.names:
        return [folder / name for name in upload.names]
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _said(compute: Compute) -> str:
    size = compute.size or "no size"
    return f"{size} with {compute.min_instances} to {compute.max_instances} instances"
