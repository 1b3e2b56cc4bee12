"""Endpoints and deployments over HTTP; invoke, and what a person calls an input."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

from batchpoint.client.connection import ByteProgress, Connection, address
from batchpoint.client.files import LocalFiles
from batchpoint.client.jobs import Job, entity_of
from batchpoint.client.resources import Resources
from batchpoint.entities.assets import Data
from batchpoint.entities.base import parse_reference
from batchpoint.entities.components import DATA_TYPES
from batchpoint.entities.documents import read_body
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, PromoteRequest, RollbackRequest
from batchpoint.entities.forecasts import Forecast, PlanRequest
from batchpoint.entities.jobs import Input, InvokeRequest, LiteralValue, Output, Overrides, literal_in
from batchpoint.entities.jobs import Job as JobEntity
from batchpoint.entities.overrides import read_overrides
from batchpoint.entities.pipeline_deployments import AnyDeployment, PipelineDeployment
from batchpoint.entities.pipelines import Component, InputPort
from batchpoint.entities.scored_models import ScoredModel
from batchpoint.errors import NotFoundError, RequestError

InputLike = str | Path | Input | Data | Mapping[str, Any]
"""A path, glob, URL or reference; an ``Input``; a registered ``Data``; or the mapping of an input in YAML."""


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
            body=request.model_dump(mode="json", exclude_none=True, exclude_unset=True),
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
            body=request.model_dump(mode="json", exclude_none=True, exclude_unset=True),
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

    def latest(self, endpoint_name: str) -> Job:
        """The job whose output is the endpoint's latest: the newest that completed and was not withdrawn.

        Raises:
            NotFoundError: there is no such endpoint, or it has no output.
        """
        body = self._connection.get(address("endpoints", endpoint_name, "latest"))
        return Job(self._connection, entity_of(JobEntity, body))

    def rollback(self, endpoint_name: str, *, job_name: str | None = None) -> Job:
        """Make an earlier output the endpoint's latest again, and withdraw the newer ones; answers with its job.

        Args:
            endpoint_name: the endpoint.
            job_name: the job to go back to; None takes the one before the present.

        Raises:
            ConflictError: there is no earlier output, the job has none, or its files are not there any more as it wrote
                them.
        """
        asked = RollbackRequest(job_name=job_name).model_dump(mode="json", exclude_none=True)
        body = self._connection.send("POST", address("endpoints", endpoint_name, "rollback"), body=asked)
        return Job(self._connection, entity_of(JobEntity, body))

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


def _deployment(body: Any) -> AnyDeployment:
    is_pipeline = isinstance(body, Mapping) and body.get("type") == "pipeline"
    return entity_of(PipelineDeployment, body) if is_pipeline else entity_of(BatchDeployment, body)


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
