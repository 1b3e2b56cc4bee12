"""The Python client: the same verbs as the operations, over HTTP."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, cast

from batchpoint import __version__
from batchpoint.client.apply import Applying, Outcome, Told
from batchpoint.client.connection import ByteProgress, Connection, address
from batchpoint.client.files import LocalFiles, declared_document, kind_of, load, with_secrets
from batchpoint.client.jobs import Job, entity_of, inside
from batchpoint.client.pipelines import Pipelines
from batchpoint.entities.assets import Code, Data, Environment, Model
from batchpoint.entities.base import Asset, Entity, parse_reference
from batchpoint.entities.components import DATA_TYPES
from batchpoint.entities.documents import Kind, read_body
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, PromoteRequest
from batchpoint.entities.forecasts import Forecast, PlanRequest
from batchpoint.entities.jobs import Input, InvokeRequest, JobStatus, LiteralValue, Output, Overrides, literal_in
from batchpoint.entities.jobs import Job as JobEntity
from batchpoint.entities.overrides import read_overrides
from batchpoint.entities.pipeline_deployments import AnyDeployment, CommandJob, PipelineDeployment
from batchpoint.entities.pipelines import Component, InputPort, Pipeline
from batchpoint.entities.resources import Compute, Datastore, DatastoreCredentials
from batchpoint.entities.schedules import Schedule, ScheduleRun
from batchpoint.entities.scored_models import ScoredModel
from batchpoint.errors import InvalidEntityError, NotFoundError, RequestError
from batchpoint.settings import Settings

__all__ = ["Client", "Job", "load"]

AnyAsset = TypeVar("AnyAsset", bound=Asset)
AnyEntity = TypeVar("AnyEntity", bound=Entity)
Asked = TypeVar("Asked")

Archived = Literal["exclude", "only", "include"]

InputLike = str | Path | Input | Data | Mapping[str, Any]
"""A path, glob, URL or reference; an ``Input``; a registered ``Data``; or the mapping of an input in YAML."""


class VersionMismatchWarning(UserWarning):
    """Client and server are of different versions."""


class Client:
    """Speaks to a server; with no address, to the local server of the home folder, which is started when none runs.

    Args:
        url: address of a server; else ``BATCHPOINT_URL``, else the local server.
        token: bearer token; else ``BATCHPOINT_TOKEN``, else the token that the local server left in its home.
        settings: instead of the settings of the environment.

    Raises:
        ServerUnavailableError: the local server did not start. A remote one is first asked at the first call.
    """

    def __init__(self, url: str | None = None, token: str | None = None, settings: Settings | None = None) -> None:
        settings = settings or Settings.from_environment()
        token = token or settings.token
        url = url or settings.url
        find_again: Callable[[], tuple[str, str | None]] | None = None
        if url is None:

            def find_again() -> tuple[str, str | None]:
                return _local_server(settings, token)

            url, token = find_again()
        self._connection = connection = Connection(url, token, find_again=find_again)
        self._server: dict[str, Any] | None = None
        self.models = Assets(connection, self.files, "models", Model)
        self.data = Assets(connection, self.files, "data", Data)
        self.environments = Assets(connection, self.files, "environments", Environment)
        self.codes = Assets(connection, self.files, "codes", Code)
        self.components = Assets(connection, self.files, "components", Component)
        self.computes = Computes(connection, self.files, "computes", Compute)
        self.datastores = Datastores(connection, self.files, "datastores", Datastore)
        self.endpoints = Endpoints(connection, self.files, "endpoints", BatchEndpoint)
        self.deployments = Deployments(connection, self.files)
        self.jobs = Jobs(connection, self.files)
        self.pipelines = Pipelines(connection, self.files)
        self.schedules = Schedules(connection, self.files, "schedules", Schedule)
        self.tokens = Tokens(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connection."""
        self._connection.close()

    @property
    def url(self) -> str:
        """Address of the server."""
        return self._connection.url

    def server(self) -> dict[str, Any]:
        """``version``, ``id``, ``shares_files`` and ``role``, asked for once. Warns when the versions differ."""
        if self._server is None:
            self._server = dict(self._connection.get("/server"))
            _warn_about_version(self.url, str(self._server.get("version")))
        return self._server

    def create_or_update(self, entity: Entity, *, progress: ByteProgress | None = None) -> Any:
        """Any entity, by its class; answers with it as it is stored, or with the ``Job`` that it starts."""
        return self.door(kind_of(entity)).create_or_update(entity, progress=progress)

    def apply(
        self,
        *paths: str | Path,
        set: Iterable[str] = (),  # noqa: A002 - as --set
        dry_run: bool = False,
        told: Told | None = None,
    ) -> list[Outcome]:
        """Create or update everything that YAML files, and those of folders, declare, in the order of their references.

        A second run changes nothing; whatever differs from the files, whoever changed it, is brought back.

        Args:
            paths: files and folders.
            set: ``key=value``, or ``kind/name:key=value`` where several things are declared.
            dry_run: whether only to say what would be done.
            told: called with each outcome as soon as it is known.

        Raises:
            InvalidEntityError: with every fault of every file, before anything is changed.
            ConflictError: what is declared cannot become so; nothing is changed then.
        """
        applying = Applying(self, paths, set)
        return applying.carry_out(applying.changes(), told, dry_run=dry_run)

    def remove(self, *paths: str | Path, dry_run: bool = False, told: Told | None = None) -> list[Outcome]:
        """Undo ``apply``: delete or archive everything that the files declare, in reverse. What is gone is passed over.

        Raises:
            InvalidEntityError: with every fault of every file.
        """
        applying = Applying(self, paths)
        return applying.carry_out(applying.removals(), told, dry_run=dry_run)

    def audit(self, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Who did what, and when; the newest first."""
        return self._connection.pages("/audit", limit=limit)

    def door(self, kind: Kind) -> Any:
        """The verbs of one kind, such as ``client.models``."""
        doors: dict[Kind, Any] = {
            "model": self.models,
            "data": self.data,
            "environment": self.environments,
            "code": self.codes,
            "component": self.components,
            "compute": self.computes,
            "datastore": self.datastores,
            "endpoint": self.endpoints,
            "deployment": self.deployments,
            "job": self.jobs,
            "schedule": self.schedules,
        }
        return doors[kind]

    def files(self) -> LocalFiles:
        """What brings paths of this machine to the server."""
        return LocalFiles(self._connection, shares_files=bool(self.server().get("shares_files")))


class Assets(Generic[AnyAsset]):
    """One kind of asset: versioned, immutable, archived instead of deleted."""

    def __init__(
        self, connection: Connection, files: Callable[[], LocalFiles], kind: str, model: type[AnyAsset]
    ) -> None:
        self._connection = connection
        self._files = files
        self._kind = kind
        self._model = model

    def create_or_update(self, asset: AnyAsset, *, progress: ByteProgress | None = None) -> AnyAsset:
        """Register an asset; without a version the next one is taken. A local path is handed over or uploaded.

        Raises:
            AlreadyExistsError: this version exists with other content.
            InvalidEntityError: the local path does not exist, or the server refused the asset.
        """
        body = self._files().entity_body(kind_of(asset), asset, progress=progress)
        return entity_of(self._model, self._connection.send("POST", f"/{self._kind}", body=body))

    def get(self, name: str, version: str | None = None, label: str | None = None) -> AnyAsset:
        """One version: by number, by label, or the latest. ``name`` may be a reference such as ``churn:3``."""
        name, version, label = _named(name, version, label)
        found = self._connection.get(address(self._kind, name), version=version, label=label)
        return entity_of(self._model, found)

    def list(
        self, name: str | None = None, *, archived: Archived = "exclude", limit: int | None = None
    ) -> Iterator[AnyAsset]:
        """The assets, or the versions of one of them."""
        for item in self._connection.pages(f"/{self._kind}", name=name, archived=archived, limit=limit):
            yield entity_of(self._model, item)

    def update(
        self, name: str, version: str | None = None, label: str | None = None, *, changes: Mapping[str, Any]
    ) -> AnyAsset:
        """Change description or tags of one version."""
        name, version, label = _named(name, version, label)
        params = {"version": version, "label": label}
        body = self._connection.send("PATCH", address(self._kind, name), body=dict(changes), params=params)
        return entity_of(self._model, body)

    def archive(self, name: str, version: str | None = None, label: str | None = None) -> None:
        """Hide one version, or all, from lists; references keep working."""
        self._mark("archive", name, version, label)

    def restore(self, name: str, version: str | None = None, label: str | None = None) -> None:
        """Undo ``archive``."""
        self._mark("restore", name, version, label)

    def download(
        self,
        name: str,
        version: str | None = None,
        label: str | None = None,
        *,
        path: str | Path = ".",
        progress: ByteProgress | None = None,
    ) -> Path:
        """Copy the asset's files into the folder ``<path>/<name>`` and answer with it."""
        asset = self.get(name, version, label)
        folder = Path(path) / asset.name
        params = f"?version={asset.version}"
        for file in self._connection.pages(address(self._kind, asset.name, "files"), version=asset.version):
            source = address(self._kind, asset.name, "files", file=file["path"]) + params
            self._connection.download(source, inside(folder, file["path"]), progress=progress)
        return folder

    def _mark(self, verb: str, name: str, version: str | None, label: str | None) -> None:
        name, version, label = _named(name, version, label)
        if label is not None:
            version = self.get(name, None, label).version
        self._connection.send("POST", address(self._kind, name, verb), params={"version": version})


class Resources(Generic[AnyEntity]):
    """One kind of named, mutable thing."""

    def __init__(
        self, connection: Connection, files: Callable[[], LocalFiles], kind: str, model: type[AnyEntity]
    ) -> None:
        self._connection = connection
        self._files = files
        self._kind = kind
        self._model = model

    def create_or_update(self, resource: AnyEntity, *, progress: ByteProgress | None = None) -> AnyEntity:
        """Store it under its name, whether or not there was one."""
        kind = kind_of(resource)
        # Who has no local paths need not know whether the server shares them.
        has_paths = kind in ("datastore", "schedule")
        body = self._files().entity_body(kind, resource, progress=progress) if has_paths else resource.given()
        return entity_of(self._model, self._connection.send("PUT", address(self._kind, resource.name), body=body))

    def get(self, name: str) -> AnyEntity:
        """The thing by that name."""
        return entity_of(self._model, self._connection.get(address(self._kind, name)))

    def list(self, *, limit: int | None = None) -> Iterator[AnyEntity]:
        """All of them."""
        for item in self._connection.pages(f"/{self._kind}", limit=limit):
            yield entity_of(self._model, item)

    def update(self, name: str, *, changes: Mapping[str, Any]) -> AnyEntity:
        """Change some keys; nested mappings are merged."""
        return entity_of(self._model, self._connection.send("PATCH", address(self._kind, name), body=dict(changes)))

    def delete(self, name: str) -> None:
        """Remove it.

        Raises:
            ConflictError: it is in use.
        """
        self._connection.send("DELETE", address(self._kind, name))


class Computes(Resources[Compute]):
    """Computes."""

    def nodes(self, name: str) -> Iterator[dict[str, Any]]:
        """The instances and their state."""
        return self._connection.pages(address("computes", name, "nodes"))


class Datastores(Resources[Datastore]):
    """Datastores, and the files in them."""

    def files(self, name: str, prefix: str = "") -> Iterator[dict[str, Any]]:
        """``path`` and ``size`` of the files below a prefix."""
        return self._connection.pages(address("datastores", name, "files"), prefix=prefix)

    def holds_credentials(self, name: str, credentials: DatastoreCredentials) -> bool:
        """Whether these are the credentials that it has; the server compares them and shows none."""
        path = address("datastores", name, "credentials", "compare")
        return bool(self._connection.send("POST", path, body=with_secrets(credentials))["same"])

    def upload(self, name: str, source: str | Path, path: str, *, progress: ByteProgress | None = None) -> str:
        """Write one local file to a path of the datastore; answers with its ``azureml://`` address."""
        self._connection.upload(address("datastores", name, "files", file=path), Path(source), progress=progress)
        return f"azureml://datastores/{name}/paths/{path}"

    def download(self, name: str, path: str, target: str | Path, *, progress: ByteProgress | None = None) -> Path:
        """Copy one file of the datastore to a local path."""
        self._connection.download(address("datastores", name, "files", file=path), Path(target), progress=progress)
        return Path(target)


class Endpoints(Resources[BatchEndpoint]):
    """Batch endpoints."""

    def invoke(
        self,
        endpoint_name: str,
        *,
        input: InputLike | None = None,  # noqa: A002 - the name that Azure ML's SDK gives it
        inputs: Mapping[str, InputLike | LiteralValue] | None = None,
        deployment_name: str | None = None,
        challenger: str | None = None,
        job_name: str | None = None,
        experiment_name: str | None = None,
        outputs: Mapping[str, Output | str | Mapping[str, Any]] | None = None,
        output_path: str | None = None,
        overrides: Overrides | Mapping[str, Any] | None = None,
        params_override: Iterable[Mapping[str, Any]] = (),
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        progress: ByteProgress | None = None,
    ) -> Job:
        """Ask a deployment to score an input; answers at once with the job.

        Args:
            endpoint_name: the endpoint.
            input: what to score: a local path or glob, URL, ``azureml://datastores/…``, ``azureml:name:version``.
            inputs: the same, by name, instead of ``input``; those of a pipeline deployment may be plain values too.
            deployment_name: None asks the default deployment.
            challenger: a second deployment that scores the same data, to be compared: ``Job.comparison()``.
            job_name: None lets the server choose.
            experiment_name: recorded with the job.
            outputs: where to write, by output name; mostly ``{"score": "…"}``.
            output_path: the same for the output ``score``.
            overrides: settings of the deployment to change for this job.
            params_override: the same as a list of mappings, in any spelling of Azure ML's SDK.
            description: recorded with the job.
            tags: recorded with the job.
            idempotency_key: a repeated invoke with the same key answers with the same job. None makes a new key, which
                keeps a repeated *connection attempt* from starting two jobs.
            progress: called while local files are uploaded.

        Raises:
            InvalidEntityError: an argument is not understood, or a local path does not exist.
            NotFoundError: no such endpoint, deployment or input.
        """
        asked = self._asked(
            endpoint_name,
            _one_way(input, inputs),
            {**({"score": output_path} if output_path else {}), **(outputs or {})},
            [*([_mapping(overrides)] if overrides is not None else []), *params_override],
            progress,
            deployment_name=deployment_name,
            challenger=challenger,
            job_name=job_name,
            experiment_name=experiment_name,
            description=description,
            tags=tags,
        )
        request = read_body(InvokeRequest, asked, name="invoke")
        body = self._connection.send(
            "POST",
            address("endpoints", endpoint_name, "invoke"),
            body=request.model_dump(mode="json", exclude_none=True, exclude_unset=False),
            headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
        )
        return Job(self._connection, entity_of(JobEntity, body))

    def plan(
        self,
        endpoint_name: str,
        *,
        input: InputLike | None = None,  # noqa: A002 - the name that ``invoke`` gives it
        inputs: Mapping[str, InputLike] | None = None,
        deployment_name: str | None = None,
        challenger: str | None = None,
        outputs: Mapping[str, Output | str | Mapping[str, Any]] | None = None,
        output_path: str | None = None,
        overrides: Overrides | Mapping[str, Any] | None = None,
        params_override: Iterable[Mapping[str, Any]] = (),
        sample_rows: int | None = None,
        finish_by: datetime | None = None,
        timeout: float | None = None,
        on_progress: Callable[[JobEntity], None] | None = None,
        progress: ByteProgress | None = None,
    ) -> Forecast:
        """Score a sample of what ``invoke`` would score, and tell what the whole would take. Publishes nothing.

        Args:
            endpoint_name: the endpoint.
            input: what to score, as for ``invoke``; so are all that are not named here.
            inputs: the same, by name.
            deployment_name: None asks the default deployment.
            challenger: a second deployment that would score the same data.
            outputs: where it would be written; a place that is taken is refused, as by ``invoke``.
            output_path: the same for the output ``score``.
            overrides: settings of the deployment to change.
            params_override: the same as a list of mappings.
            sample_rows: items to score at most; None scores for about three seconds.
            finish_by: until when the whole should be over: ``Forecast.deadline`` says whether it would.
            timeout: seconds to wait for the forecast; None waits as long as it takes.
            on_progress: called with the record of the job that scores the sample.
            progress: called while local files are uploaded.

        Raises:
            TimeoutError: the sample was not scored in time.
            BatchpointError: what ``invoke`` refuses, and what fails the sample: a script that cannot start.
        """
        asked = self._asked(
            endpoint_name,
            _one_way(input, inputs),
            {**({"score": output_path} if output_path else {}), **(outputs or {})},
            [*([_mapping(overrides)] if overrides is not None else []), *params_override],
            progress,
            deployment_name=deployment_name,
            challenger=challenger,
        )
        request = read_body(PlanRequest, {**asked, "sample_rows": sample_rows, "finish_by": finish_by}, name="plan")
        body = self._connection.send(
            "POST",
            address("endpoints", endpoint_name, "plan"),
            body=request.model_dump(mode="json", exclude_none=True),
        )
        job = Job(self._connection, entity_of(JobEntity, body))
        return job.wait(timeout, on_progress=on_progress).forecast()

    def promote(
        self,
        endpoint_name: str,
        deployment_name: str,
        *,
        job_name: str | None = None,
        if_agreement: float | None = None,
    ) -> BatchEndpoint:
        """Let a deployment answer by default; which job spoke for it is kept in the endpoint's properties.

        Args:
            endpoint_name: the endpoint.
            deployment_name: the deployment, mostly the challenger of a job.
            job_name: the job whose comparison speaks for it; None takes the newest one when agreement is asked for.
            if_agreement: the share of the champion's results that it has to agree with, such as 0.98.

        Raises:
            ConflictError: it agrees too little, has changed since, or the job compared something else.
            NotFoundError: there is no such endpoint, deployment, job or comparison.
        """
        asked = PromoteRequest(deployment_name=deployment_name, job_name=job_name, if_agreement=if_agreement)
        path = address("endpoints", endpoint_name, "promote")
        body = self._connection.send("POST", path, body=asked.model_dump(mode="json", exclude_none=True))
        return entity_of(BatchEndpoint, body)

    def _asked(
        self,
        endpoint_name: str,
        inputs: Mapping[str, InputLike],
        outputs: Mapping[str, Any],
        overrides: Iterable[Mapping[str, Any]],
        progress: ByteProgress | None,
        **named: Any,
    ) -> dict[str, Any]:
        """The body of an invoke: local files made known to the server, overrides read in any spelling."""
        changes = read_overrides(overrides)
        files = self._files()
        data, literals = self._apart(endpoint_name, named["deployment_name"], inputs)
        return {
            "inputs": {key: _input(value, files, progress) for key, value in data.items()},
            "literals": literals,
            "outputs": {key: _output(value, files) for key, value in {**changes.outputs, **outputs}.items()},
            **named,
            "job_name": named.get("job_name") or changes.job_name,
            "experiment_name": named.get("experiment_name") or changes.experiment_name,
            "description": named.get("description") or changes.description,
            "tags": {**changes.tags, **(named.get("tags") or {})},
            "overrides": changes.overrides,
        }

    def _apart(
        self, endpoint_name: str, deployment_name: str | None, given: Mapping[str, Any]
    ) -> tuple[dict[str, InputLike], dict[str, LiteralValue]]:
        """Data and plain values. What a mere text is, only the deployment knows: it is asked when there is one."""
        data: dict[str, InputLike] = {}
        literals: dict[str, LiteralValue] = {}
        ports: Mapping[str, Any] | None = None
        for name, value in given.items():
            if isinstance(value, str):
                ports = self._ports(endpoint_name, deployment_name) if ports is None else ports
                is_data = not ports or (name in ports and ports[name].type in DATA_TYPES)
            else:
                is_data = literal_in(value) is None
            if is_data:
                data[name] = value
            else:
                literals[name] = value if isinstance(value, str) else cast("LiteralValue", literal_in(value))
        return data, literals

    def _ports(self, endpoint_name: str, deployment_name: str | None) -> Mapping[str, InputPort]:
        """The inputs of a pipeline deployment's component; none for a model deployment, or where the invoke will say
        what is wrong."""
        try:
            name = deployment_name or self.get(endpoint_name).defaults.deployment_name
            path = address("endpoints", endpoint_name, "deployments", name or "-")
            deployment = _deployment(self._connection.get(path))
            if isinstance(deployment, BatchDeployment) or not isinstance(deployment.component, str):
                return {}
            reference = parse_reference(deployment.component)
            found = self._connection.get(address("components", reference.name), version=reference.version)
            return entity_of(Component, found).inputs
        except NotFoundError:
            return {}

    def list_jobs(self, endpoint_name: str, *, limit: int | None = None) -> Iterator[Job]:
        """The jobs of an endpoint, the newest first."""
        for item in self._connection.pages(address("endpoints", endpoint_name, "jobs"), limit=limit):
            yield Job(self._connection, entity_of(JobEntity, item))


class Schedules(Resources[Schedule]):
    """Schedules: what starts jobs by itself."""

    def list(self, *, enabled: bool | None = None, limit: int | None = None) -> Iterator[Schedule]:
        """All of them, or only those that are enabled, or not."""
        for item in self._connection.pages("/schedules", limit=limit, enabled=enabled):
            yield entity_of(Schedule, item)

    def delete(self, name: str, *, force: bool = False) -> None:
        """Remove it, with the record of its runs. Its jobs stay.

        Raises:
            ConflictError: it is enabled, and ``force`` was not given.
        """
        self._connection.send("DELETE", address("schedules", name), params={"force": True if force else None})

    def enable(self, name: str) -> Schedule:
        """Let it fire again, from its next time on."""
        return entity_of(Schedule, self._connection.send("POST", address("schedules", name, "enable")))

    def disable(self, name: str) -> Schedule:
        """Let it fire no more until it is enabled."""
        return entity_of(Schedule, self._connection.send("POST", address("schedules", name, "disable")))

    def trigger(self, name: str) -> Job:
        """Fire it now, enabled or not; answers at once with the job.

        Raises:
            ConflictError: it waits for files, and there are no new ones.
        """
        run = self._connection.send("POST", address("schedules", name, "trigger"))
        return Job(self._connection, entity_of(JobEntity, self._connection.get(address("jobs", run["job_name"]))))

    def upcoming(self, name: str, count: int = 10) -> Iterator[dict[str, Any]]:
        """``fire_time``, ``local_time`` and ``window_start`` of the next times. None for files."""
        return self._connection.pages(address("schedules", name, "upcoming"), count=count)

    def runs(self, name: str, *, outcome: str | None = None, limit: int | None = None) -> Iterator[ScheduleRun]:
        """What became of each time, the newest first; ``outcome`` is started, skipped, missed, failed or pending."""
        for item in self._connection.pages(address("schedules", name, "runs"), outcome=outcome, limit=limit):
            yield ScheduleRun.model_validate(item)


class Deployments:
    """Batch deployments."""

    def __init__(self, connection: Connection, files: Callable[[], LocalFiles]) -> None:
        self._connection = connection
        self._files = files

    def create_or_update(
        self,
        deployment: AnyDeployment,
        *,
        set_default: bool = False,
        skip_script_validation: bool = False,
        progress: ByteProgress | None = None,
    ) -> AnyDeployment:
        """Store a deployment under its endpoint; models, code and environments declared in place are registered.

        Args:
            deployment: what to store.
            set_default: whether it answers invokes that name none.
            skip_script_validation: whether the scoring script is stored unread.
            progress: called while local files are uploaded.

        Raises:
            InvalidEntityError: the scoring script has a syntax error, a path does not exist, a reference leads nowhere.
            NotFoundError: there is no such endpoint.
        """
        body = self._files().entity_body("deployment", deployment, progress=progress)
        params = {
            "set_default": True if set_default else None,
            "skip_script_validation": True if skip_script_validation else None,
        }
        path = self._path(deployment.endpoint_name, deployment.name)
        return _deployment(self._connection.send("PUT", path, body=body, params=params, timeout=300))

    def get(self, name: str, endpoint_name: str) -> AnyDeployment:
        """One deployment."""
        return _deployment(self._connection.get(self._path(endpoint_name, name)))

    def list(self, endpoint_name: str, *, limit: int | None = None) -> Iterator[AnyDeployment]:
        """The deployments of an endpoint."""
        for item in self._connection.pages(address("endpoints", endpoint_name, "deployments"), limit=limit):
            yield _deployment(item)

    def update(self, name: str, endpoint_name: str, *, changes: Mapping[str, Any]) -> AnyDeployment:
        """Change some keys; nested mappings are merged."""
        body = self._connection.send("PATCH", self._path(endpoint_name, name), body=dict(changes))
        return _deployment(body)

    def delete(self, name: str, endpoint_name: str) -> None:
        """Remove it.

        Raises:
            ConflictError: it is the endpoint's default.
        """
        self._connection.send("DELETE", self._path(endpoint_name, name))

    def list_jobs(self, name: str, endpoint_name: str, *, limit: int | None = None) -> Iterator[Job]:
        """The jobs of a deployment, the newest first."""
        for item in self._connection.pages(f"{self._path(endpoint_name, name)}/jobs", limit=limit):
            yield Job(self._connection, entity_of(JobEntity, item))

    def models(
        self,
        name: str,
        endpoint_name: str,
        *,
        failing: bool = False,
        order: Literal["key", "failed", "rows", "seconds", "last_seen"] = "key",
        limit: int | None = None,
    ) -> Iterator[ScoredModel]:
        """The board of a deployment with a model map: what each key's model did, over all jobs.

        Args:
            name: the deployment.
            endpoint_name: its endpoint.
            failing: whether only those come of which something failed or was skipped the last time.
            order: what comes first: the greatest number, or the latest time.
            limit: how many at most.
        """
        query = {"failing": True if failing else None, "order": order}
        for item in self._connection.pages(f"{self._path(endpoint_name, name)}/models", limit=limit, **query):
            yield entity_of(ScoredModel, item)

    @staticmethod
    def _path(endpoint_name: str, name: str) -> str:
        return address("endpoints", endpoint_name, "deployments", name)


class Jobs:
    """Jobs by name. Each verb is also a method of the ``Job`` itself."""

    def __init__(self, connection: Connection, files: Callable[[], LocalFiles]) -> None:
        self._connection = connection
        self._files = files

    def create_or_update(
        self,
        job: Pipeline | CommandJob | str | Path,
        *,
        set: Iterable[str] = (),  # noqa: A002 - as --set
        idempotency_key: str | None = None,
        progress: ByteProgress | None = None,
    ) -> Job:
        """Start a pipeline, or a command by itself; answers at once with the job. A job never changes once it is there.

        Args:
            job: the pipeline or command, or the YAML file of one.
            set: ``a.b=c`` for a file, applied before it is checked.
            idempotency_key: the same key with the same job answers with the job that was made then; None makes a new
                key, which keeps a repeated *connection attempt* from starting two jobs.
            progress: called while local files are uploaded.

        Raises:
            InvalidEntityError: with every fault of the pipeline; of a file with its lines.
            AlreadyExistsError: there is a job of that name.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}

        def start(body: dict[str, Any]) -> Job:
            answered = self._connection.send("POST", "/jobs", body=body, headers=headers, timeout=300)
            return Job(self._connection, entity_of(JobEntity, answered))

        return self._with_body(job, set, progress, start)

    def validate(
        self,
        job: Pipeline | CommandJob | str | Path,
        *,
        set: Iterable[str] = (),  # noqa: A002 - as --set
    ) -> None:
        """Look for every fault of a pipeline, or of a command, without storing or starting anything.

        Raises:
            InvalidEntityError: as ``create_or_update``; ``details['problems']`` lists them.
        """

        def check(body: dict[str, Any]) -> None:
            found = self._connection.send("POST", "/jobs/validate", body=body, timeout=300)
            if not found["valid"]:
                raise InvalidEntityError(found["message"], problems=found["problems"])

        self._with_body(job, set, None, check)

    def _with_body(
        self,
        job: Pipeline | CommandJob | str | Path,
        assignments: Iterable[str],
        progress: ByteProgress | None,
        ask: Callable[[dict[str, Any]], Asked],
    ) -> Asked:
        """Ask for something with the body of a job; faults of a file are told with its lines."""
        if isinstance(job, Pipeline | CommandJob):
            return ask(self._files().entity_body("job", job, progress=progress))
        document, kind = declared_document("job", path=job, assignments=assignments)
        entity = document.entity(kind)
        try:
            return ask(self._files().entity_body("job", entity, progress=progress))
        except InvalidEntityError as error:
            raise document.located(error) from None

    def get(self, name: str) -> Job:
        """One job."""
        return Job(self._connection, entity_of(JobEntity, self._connection.get(address("jobs", name))))

    def list(
        self,
        *,
        status: str | None = None,
        endpoint: str | None = None,
        parent: str | None = None,
        schedule: str | None = None,
        archived: Archived = "exclude",
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Jobs, the newest first; with ``parent`` the steps of that pipeline job, which are left out otherwise."""
        query = {"status": status, "endpoint": endpoint, "parent": parent, "schedule": schedule, "archived": archived}
        for item in self._connection.pages("/jobs", limit=limit, **query):
            yield Job(self._connection, entity_of(JobEntity, item))

    def update(self, name: str, *, changes: Mapping[str, Any]) -> Job:
        """Change description or tags."""
        body = self._connection.send("PATCH", address("jobs", name), body=dict(changes))
        return Job(self._connection, entity_of(JobEntity, body))

    def cancel(self, name: str) -> Job:
        """Ask a job to stop."""
        return self.get(name).cancel()

    def sweep(self, older_than: timedelta, *, dry_run: bool = False) -> Sequence[Job]:
        """Cancel every unfinished job that was started longer ago (or queued, if it never was); answers with them.

        Each gets the tag ``batchpoint.swept``, which says why it was canceled.
        """
        latest = datetime.now(UTC) - older_than
        active = [job for status in JobStatus if not status.is_finished for job in self.list(status=status.value)]
        swept = [job for job in active if (job.entity.started_at or job.entity.queued_at or latest) < latest]
        for job in [] if dry_run else swept:
            since = job.entity.started_at or job.entity.queued_at
            self.update(job.name, changes={"tags": {"batchpoint.swept": f"active since {since}, over {older_than}"}})
            job.cancel()
        return swept

    def retry_failed(self, name: str, *, current_deployment: bool = False) -> Job:
        """``Job.retry_failed``."""
        return self.get(name).retry_failed(current_deployment=current_deployment)

    def retry(self, name: str) -> Job:
        """``Job.retry``."""
        return self.get(name).retry()

    def wait(self, name: str, timeout: float | None = None, *, raise_on_failure: bool = True) -> Job:
        """``Job.wait``."""
        return self.get(name).wait(timeout, raise_on_failure=raise_on_failure)

    def stream(self, name: str) -> Job:
        """``Job.stream``."""
        return self.get(name).stream()

    def download(self, name: str, path: str | Path | None = None, *, output_name: str | None = None) -> Path:
        """``Job.download``."""
        return self.get(name).download(path, output_name=output_name)

    def archive(self, name: str) -> None:
        """Hide a job from lists."""
        self._connection.send("POST", address("jobs", name, "archive"))

    def restore(self, name: str) -> None:
        """Undo ``archive``."""
        self._connection.send("POST", address("jobs", name, "restore"))


class Tokens:
    """Bearer tokens of the server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self, name: str, *, role: Literal["admin", "operator", "reader"] = "reader", expires_in_days: int | None = None
    ) -> dict[str, Any]:
        """A new token. The answer's ``secret`` is shown here and nowhere else; keep it."""
        body = {"name": name, "role": role, "expires_in_days": expires_in_days}
        given = {key: value for key, value in body.items() if value is not None}
        return dict(self._connection.send("POST", "/tokens", body=given))

    def list(self) -> Iterator[dict[str, Any]]:
        """The tokens without their secrets."""
        return self._connection.pages("/tokens")

    def revoke(self, name: str) -> None:
        """End a token's validity at once."""
        self._connection.send("DELETE", address("tokens", name))


def _local_server(settings: Settings, token: str | None) -> tuple[str, str | None]:
    from batchpoint import local_server

    server = local_server.ensure(settings.home)
    _warn_about_version(server.url, server.version)
    return server.url, token or local_server.read_token(settings.home)


def _warn_about_version(url: str, version: str) -> None:
    if version != __version__:
        message = (
            f"The server at {url} is version {version}, this client is version {__version__}. Restart a local server "
            "with 'batchpoint down' and 'batchpoint up'; for another one install its version of batchpoint."
        )
        warnings.warn(message, VersionMismatchWarning, stacklevel=3)


def _deployment(body: Any) -> AnyDeployment:
    is_pipeline = isinstance(body, Mapping) and body.get("type") == "pipeline"
    return entity_of(PipelineDeployment, body) if is_pipeline else entity_of(BatchDeployment, body)


def _named(name: str, version: str | None, label: str | None) -> tuple[str, str | None, str | None]:
    """A name that may be a whole reference, with version and label taken out of it."""
    reference = parse_reference(name)
    return reference.name, version or reference.version, label or reference.label


def _mapping(overrides: Overrides | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(overrides, Overrides):
        return overrides.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    return overrides


def _one_way(one: InputLike | None, many: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if one is not None and many:
        raise RequestError("Give either 'input' or 'inputs', not both.")
    if one is None and many is None:
        raise RequestError("Input path can't be empty for batch endpoint invoke: give 'input'.")
    return {"input": Input(path=str(one)) if isinstance(one, str) else one} if one is not None else (many or {})


def _input(given: InputLike, files: LocalFiles, progress: ByteProgress | None) -> Input:
    """What a person calls an input → an ``Input`` whose paths the server understands."""
    if isinstance(given, Data):
        given = Input(type=given.type, path=f"azureml:{given.reference}" if given.version else given.path)
    elif isinstance(given, Mapping):
        given = read_body(Input, {key: value for key, value in given.items() if key != "mode"}, name="input")
    elif isinstance(given, str | Path):
        given = Input(path=str(given))
    placed = [files.place(path, progress=progress) for path in (given.path, *given.paths)]
    return given.model_copy(update={"path": placed[0], "paths": placed[1:]})


def _output(given: Output | str | Mapping[str, Any], files: LocalFiles) -> Output:
    if isinstance(given, Mapping):
        given = read_body(Output, {key: value for key, value in given.items() if key != "mode"}, name="output")
    output = Output(path=given) if isinstance(given, str) else given
    return output.model_copy(update={"path": files.output_path(output.path)}) if output.path else output
