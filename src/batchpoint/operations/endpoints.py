"""Endpoints and deployments; the default deployment; invoke. There is one way to make a job, and it starts here."""

from __future__ import annotations

import hashlib
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import cast

from batchpoint.entities.comparisons import Comparison
from batchpoint.entities.endpoints import (
    BatchDeployment,
    BatchEndpoint,
    EndpointDefaults,
    PromoteRequest,
    RollbackRequest,
)
from batchpoint.entities.forecasts import PlanRequest
from batchpoint.entities.jobs import WITHDRAWN, InvokeRequest, Job, JobStatus, Sampling
from batchpoint.entities.pipeline_deployments import AnyDeployment, PipelineDeployment
from batchpoint.entities.resources import Compute
from batchpoint.entities.scored_models import ScoredModel
from batchpoint.errors import AlreadyExistsError, ConflictError, InvalidEntityError, NotFoundError
from batchpoint.operations.assets import Assets
from batchpoint.operations.deployments import DeploymentResolver, missing_deployment
from batchpoint.operations.invoking import InputsAndOutputs, effective_deployment
from batchpoint.operations.jobs import NAME_ANOTHER, SCORE, Jobs
from batchpoint.operations.latest_outputs import WrittenOutput, latest_of, rollback_of
from batchpoint.operations.model_maps import AS_OF, FOUND, ModelMaps
from batchpoint.operations.pipeline_deployments import PipelineDeployments
from batchpoint.operations.pipelines import Pipelines
from batchpoint.operations.places import Places
from batchpoint.operations.promotion import check_speaks_for, newest_comparing, promoted
from batchpoint.registry import Registry
from batchpoint.registry.changes import repeated
from batchpoint.registry.jobs import ACTIVE_STATUSES
from batchpoint.registry.scored_models import Order

LOOKED_AT = 20
"""Jobs that are read at a time, to find the latest output among them."""
MOST_DEPLOYMENTS = 20
"""Of one endpoint. Source: Azure ML's limits for batch endpoints."""


class Endpoints:
    """What a user may ask about endpoints and deployments."""

    def __init__(
        self,
        registry: Registry,
        assets: Assets,
        places: Places,
        model_maps: ModelMaps,
        pipelines: Pipelines,
        jobs: Jobs,
        job_queued: threading.Event,
    ) -> None:
        self._registry = registry
        self._jobs = jobs
        self._assets = assets
        self._model_maps = model_maps
        self._pipeline_deployments = PipelineDeployments(assets, pipelines)
        self._resolver = DeploymentResolver(registry, assets, model_maps)
        self._inputs_and_outputs = InputsAndOutputs(assets, places)
        self._job_queued = job_queued

    def create_or_update(self, endpoint: BatchEndpoint, *, by: str | None = None) -> BatchEndpoint:
        """Create an endpoint, or change the one of that name. Keys that are not given stay as they are.

        Raises:
            NotFoundError: the default deployment does not exist.
        """
        not_given = BatchEndpoint.model_fields.keys() - endpoint.model_fields_set

        def change() -> BatchEndpoint:
            try:
                before = self.get(endpoint.name)
            except NotFoundError:
                return self._stored(endpoint, None, by)
            kept = {key: getattr(before, key) for key in not_given}
            return self._stored(endpoint.model_copy(update=kept), before, by)

        return repeated(change)

    def update(
        self, name: str, change: Callable[[BatchEndpoint], BatchEndpoint], *, by: str | None = None
    ) -> BatchEndpoint:
        """Store what ``change`` makes of an endpoint. It is asked again when another change came between.

        Raises:
            NotFoundError: there is no such endpoint, or no such deployment to be its default.
        """

        def changed() -> BatchEndpoint:
            before = self.get(name)
            return self._stored(change(before), before, by)

        return repeated(changed)

    def get(self, name: str) -> BatchEndpoint:
        """One endpoint. Raises ``NotFoundError``."""
        return self._registry.endpoints.get(name)

    def list(self, *, limit: int | None = None, offset: int = 0) -> Sequence[BatchEndpoint]:
        """All endpoints, by name."""
        return self._registry.endpoints.list(limit=limit, offset=offset)

    def delete(self, name: str) -> None:
        """Delete an endpoint and its deployments. The jobs that it started stay.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: jobs of it are not finished.
        """
        self.get(name)
        active = self._registry.jobs.list(endpoint=name, status=ACTIVE_STATUSES, archived="include", limit=6)
        if active:
            names = ", ".join(job.name for job in active[:5]) + (", …" if len(active) > 5 else "")
            raise ConflictError(
                f"Endpoint {name} cannot be deleted: jobs of it are not finished ({names}). "
                "Wait for them, or cancel them first."
            )
        self._registry.endpoints.delete(name)

    def create_or_update_deployment(
        self,
        deployment: AnyDeployment,
        *,
        set_default: bool = False,
        skip_script_validation: bool = False,
        by: str | None = None,
    ) -> AnyDeployment:
        """Create a deployment, or replace the one of that name. It becomes the default only if ``set_default`` says so.

        Everything that its jobs need is checked now; what is declared in place is registered.

        Raises:
            NotFoundError: the endpoint, or something that the deployment refers to, does not exist.
            InvalidEntityError: a part is missing or wrong, such as a syntax error in the script.
            ConflictError: the endpoint has as many deployments as it may.
        """
        endpoint = self.get(deployment.endpoint_name)
        try:
            self._registry.deployments.get(endpoint.name, deployment.name)
        except NotFoundError:
            if self._registry.deployments.count(endpoint.name) >= MOST_DEPLOYMENTS:
                message = (
                    f"Endpoint {endpoint.name} has {MOST_DEPLOYMENTS} deployments, the most it may. Delete one first."
                )
                raise ConflictError(message) from None
        resolved = self._resolved(deployment, by, read_script=not skip_script_validation)
        stored = self._registry.deployments.put(resolved, by=by)
        if set_default:
            self._set_default(stored, by)
        return stored

    def update_deployment(
        self,
        endpoint_name: str,
        name: str,
        change: Callable[[AnyDeployment], AnyDeployment],
        *,
        set_default: bool = False,
        skip_script_validation: bool = False,
        by: str | None = None,
    ) -> AnyDeployment:
        """Store what ``change`` makes of a deployment. It is asked again when another change came between.

        Raises:
            NotFoundError: there is no such deployment, or something that it refers to does not exist.
            InvalidEntityError: a part is missing or wrong, such as a syntax error in the script.
        """

        def changed() -> AnyDeployment:
            before = self.get_deployment(endpoint_name, name)
            resolved = self._resolved(change(before), by, read_script=not skip_script_validation)
            return self._registry.deployments.put(resolved, by=by, seen=before)

        stored = repeated(changed)
        if set_default:
            self._set_default(stored, by)
        return stored

    def get_deployment(self, endpoint_name: str, name: str) -> AnyDeployment:
        """One deployment. Raises ``NotFoundError``."""
        self.get(endpoint_name)
        return self._registry.deployments.get(endpoint_name, name)

    def list_deployments(self, endpoint_name: str) -> Sequence[AnyDeployment]:
        """The deployments of an endpoint, by name. Raises ``NotFoundError``."""
        self.get(endpoint_name)
        return self._registry.deployments.list(endpoint_name=endpoint_name)

    def models(
        self,
        endpoint_name: str,
        name: str,
        *,
        failing: bool = False,
        order: Order = "key",
        limit: int = 50,
        offset: int = 0,
    ) -> Sequence[ScoredModel]:
        """The board of a deployment with a model map: what each key's model did, over all jobs.

        With ``failing`` only those of which something failed or was skipped the last time.

        Raises:
            NotFoundError: there is no such deployment.
        """
        self.get_deployment(endpoint_name, name)
        return self._registry.scored_models.list(
            endpoint_name, name, failing=failing, order=order, limit=limit, offset=offset
        )

    def delete_deployment(self, endpoint_name: str, name: str) -> None:
        """Delete a deployment. The jobs that it started stay.

        Raises:
            NotFoundError: there is no such deployment.
            ConflictError: it is the default, or jobs of it are not finished.
        """
        self.get_deployment(endpoint_name, name)
        if self.get(endpoint_name).defaults.deployment_name == name:
            raise ConflictError(
                f"Deployment {endpoint_name}/{name} cannot be deleted: it is the default of endpoint {endpoint_name}. "
                "Set another default first."
            )
        active = self._registry.jobs.list(
            endpoint=endpoint_name, deployment=name, status=ACTIVE_STATUSES, archived="include", limit=1
        )
        if active:
            raise ConflictError(
                f"Deployment {endpoint_name}/{name} cannot be deleted: its job {active[0].name} is {active[0].status}. "
                "Wait for it, or cancel it first."
            )
        self._registry.deployments.delete(endpoint_name, name)

    def promote(self, name: str, request: PromoteRequest, *, by: str | None = None) -> BatchEndpoint:
        """Let a deployment answer by default, on the word of a comparison where one is asked for.

        Who promoted what, when, in place of what and because of which job is kept in the property ``promotions`` of the
        endpoint, the newest first. Nothing happens when it is the default already.

        Raises:
            NotFoundError: there is no such endpoint, deployment, job or comparison.
            ConflictError: the job compared something else, the deployment has changed since, or they agree too little.
        """
        return repeated(lambda: self._promoted(name, request, by))

    def _promoted(self, name: str, request: PromoteRequest, by: str | None) -> BatchEndpoint:
        endpoint = self.get(name)
        before = endpoint.defaults.deployment_name
        wanted = self._registry.deployments.get(name, request.deployment_name)
        if before == wanted.name:
            return endpoint
        comparison: Comparison | None = None
        if request.job_name is not None or request.if_agreement is not None:
            completed = self._registry.jobs.list(
                endpoint=name, status=JobStatus.COMPLETED, archived="include", limit=1000
            )
            job = (
                self._registry.jobs.get(request.job_name)
                if request.job_name is not None
                else newest_comparing(completed, wanted.name, before)
            )
            comparison = self._jobs.comparison(job.name)
            champion = self._registry.deployments.get(name, before) if before is not None else None
            check_speaks_for(job, comparison, endpoint, wanted, request.if_agreement, champion=champion)
        changed = promoted(endpoint, wanted.name, comparison, at=datetime.now(UTC), by=by)
        return self._registry.endpoints.put(changed, by=by, seen=endpoint)

    def latest(self, name: str) -> Job:
        """The job whose output is the endpoint's latest: the newest that completed and was not withdrawn.

        Raises:
            NotFoundError: there is no such endpoint, or it has no output.
        """
        return latest_of(name, self._outputs(self.get(name)), self._jobs.written_over)

    def rollback(self, name: str, request: RollbackRequest, *, by: str | None = None) -> Job:
        """Make an earlier output the latest again; answers with its job. Outputs stay where they are.

        The newer ones are withdrawn: their jobs keep when and on whose word in the property ``withdrawn``. A job and
        its retries are one output, and go together.

        Raises:
            NotFoundError: there is no such endpoint.
            ConflictError: there is no earlier output, the job that was named has none, or its files are not there any
                more as it wrote them.
            DatastoreError: the store does not answer.
        """
        found = rollback_of(name, self._outputs(self.get(name)), request.job_name)
        latest = found.latest.completed[-1]
        self._check_there(found.latest)
        word = f"{datetime.now(UTC).isoformat(timespec='seconds')} {by or ''}".rstrip()
        self._mark(found.latest, "")
        # The oldest first: until all are done the newest is still the latest, and a rollback can be asked for again.
        for output in reversed(found.withdrawn):
            self._mark(output, word)
        return self._jobs.get(latest.name)

    def _check_there(self, output: WrittenOutput) -> None:
        """Look whether an output still is what its job wrote."""
        job, over = output.completed[-1], self._jobs.written_over(output)
        gone = self._jobs.missing_file(job) if over is None else None
        if over is None and gone is None:
            return
        what = f"was written over by job {over.name}" if over is not None else f"is gone: {gone} is not there any more"
        raise ConflictError(
            f"The output of job {job.name} {what}. Nothing was rolled back. Score its input again to have it back, or "
            "name another job."
        )

    def _mark(self, output: WrittenOutput, word: str) -> None:
        """Say of an output that it is withdrawn, or no more. Each of its jobs keeps it, those that still run, too: what
        is scored again afterwards takes it over."""
        for job in output.jobs:
            if job.properties.get(WITHDRAWN, "") != word:
                self._jobs.update(job.name, properties={WITHDRAWN: word})

    def _outputs(self, endpoint: BatchEndpoint) -> Iterator[WrittenOutput]:
        """What the endpoint's jobs wrote, the newest first, as many as are looked at.

        Those of an endpoint of the same name that was deleted are not its own.
        """
        for offset in itertools.count(step=LOOKED_AT):
            found = self._registry.jobs.list(
                endpoint=endpoint.name,
                since=endpoint.created_at,
                top_level=True,
                retries=False,
                archived="include",
                limit=LOOKED_AT,
                offset=offset,
            )
            yield from map(self._jobs.written_by, found)
            if len(found) < LOOKED_AT:
                return

    def invoke(
        self,
        name: str,
        request: InvokeRequest,
        *,
        idempotency_key: str | None = None,
        schedule_name: str | None = None,
        traceparent: str | None = None,
        by: str | None = None,
    ) -> Job:
        """Ask an endpoint to score an input, or to run its pipeline. Answers with the queued job.

        Whatever can be known to fail fails now: the input has to exist and be readable, the output's place free and
        writable, model, script and environment at hand. The same idempotency key with the same request gives the
        job that was made then. ``schedule_name`` is the schedule that asks, ``traceparent`` where in a trace.

        Raises:
            NotFoundError: endpoint, deployment or a referred asset does not exist; or there is no default deployment.
            InvalidEntityError: the request is not one that a deployment can answer.
            InputError: the input does not exist or may not be read.
            AlreadyExistsError: the job's name is taken, or something lies where the output should go.
            ConflictError: the idempotency key was used for another request.
            DatastoreError: the store does not answer, or refuses access.
        """
        request_hash = hashlib.sha256(f"{name} {request.model_dump_json()}".encode()).hexdigest()
        if idempotency_key is not None:
            known = self._registry.jobs.find_submitted(idempotency_key, request_hash)
            if known is not None:
                return known
        declared = self.deployment_for(name, request.deployment_name)
        if isinstance(declared, PipelineDeployment):
            if request.challenger is not None:
                raise _only_models(declared, "compared with a challenger")
            return self._pipeline_deployments.invoke(
                declared,
                request,
                idempotency_key=idempotency_key,
                request_hash=request_hash,
                schedule_name=schedule_name,
                traceparent=traceparent,
                by=by,
            )
        try:
            job = self._job(declared, request, by)
            job = job.model_copy(update={"schedule_name": schedule_name, "traceparent": traceparent})
        except AlreadyExistsError:
            # The same request may have come in twice at once, and the other one's job has the name by now.
            known = self._registry.jobs.find_submitted(idempotency_key, request_hash) if idempotency_key else None
            if known is None:
                raise
            return known
        stored, created = self._registry.jobs.enqueue(job, idempotency_key=idempotency_key, request_hash=request_hash)
        if created:
            self._job_queued.set()
        return stored

    def plan(self, name: str, request: PlanRequest, *, by: str | None = None) -> Job:
        """Score a sample of what an invoke would score, to forecast the whole: ``jobs.forecast`` of the job has it.

        The job is archived from the start, publishes nothing, and is told of all that an invoke is refused for.

        Raises:
            As ``invoke`` does.
        """
        named = request.model_copy(update={"job_name": request.job_name or f"plan-{uuid.uuid4()}"})
        sampling = Sampling(rows=request.sample_rows, finish_by=request.finish_by)
        declared = self.deployment_for(name, request.deployment_name)
        if isinstance(declared, PipelineDeployment):
            raise _only_models(declared, "sampled")
        job = self._job(declared, named, by).model_copy(update={"sample": sampling, "archived": True})
        stored, _ = self._registry.jobs.enqueue(job)
        self._job_queued.set()
        return stored

    def _resolved(self, deployment: AnyDeployment, by: str | None, *, read_script: bool) -> AnyDeployment:
        if isinstance(deployment, PipelineDeployment):
            return self._pipeline_deployments.resolve(deployment, by=by)
        self._inputs_and_outputs.check_table(deployment)
        self._check_reference(deployment)
        return self._resolver.resolve(deployment, by=by, read_script=read_script)

    def _set_default(self, deployment: AnyDeployment, by: str | None) -> None:
        defaults = EndpointDefaults(deployment_name=deployment.name)
        self.update(deployment.endpoint_name, lambda before: before.model_copy(update={"defaults": defaults}), by=by)

    def _job(self, declared: BatchDeployment, request: InvokeRequest, by: str | None) -> Job:
        if request.job_name is not None and self._registry.jobs.exists(request.job_name):
            message = f"A job named {request.job_name} exists already. Choose another name, or leave it out."
            raise AlreadyExistsError(message)
        job_name = request.job_name or f"batchjob-{uuid.uuid4()}"
        if request.literals:
            name, value = next(iter(request.literals.items()))
            raise InvalidEntityError(
                f"Input '{name}' is the plain value {value!r}, and deployment {declared.name} takes none: it scores "
                'exactly one data input. Write that one as {"path": …}.'
            )
        compute = cast("Compute", self._registry.resources.get("compute", declared.compute_name))
        deployment, notices = effective_deployment(declared, request.overrides, compute)
        self._check_at_hand(deployment)
        self._check_reference(deployment)
        challenger = self._challenger(request, deployment)
        source, properties = self._inputs_and_outputs.check_inputs(request.inputs)
        output, deployment = self._inputs_and_outputs.check_outputs(request.outputs, job_name, deployment)
        models, notices_of_models = self._check_models(deployment)
        return Job(
            name=job_name,
            description=request.description,
            tags=request.tags,
            properties={**properties, **models},
            created_by=by,
            endpoint_name=declared.endpoint_name,
            deployment_name=deployment.name,
            experiment_name=request.experiment_name,
            deployment=deployment,
            challenger=challenger,
            inputs=source,
            outputs={SCORE: output},
            overrides=request.overrides,
            notices=[*notices, *notices_of_models],
        )

    def deployment_for(self, endpoint_name: str, deployment_name: str | None) -> AnyDeployment:
        """The deployment that answers an invoke. Raises ``NotFoundError``, also when there is no default one."""
        endpoint = self.get(endpoint_name)
        wanted = deployment_name or endpoint.defaults.deployment_name
        if wanted is None:
            raise missing_deployment(endpoint_name)
        return self._registry.deployments.get(endpoint_name, wanted)

    def _challenger(self, request: InvokeRequest, champion: BatchDeployment) -> BatchDeployment | None:
        if request.challenger is None:
            return None
        if request.challenger == champion.name:
            message = f"Deployment {champion.name} cannot be its own challenger. Name another deployment."
            raise InvalidEntityError(message)
        challenger = self._registry.deployments.get(champion.endpoint_name, request.challenger)
        if isinstance(challenger, PipelineDeployment):
            raise _only_models(challenger, "a challenger")
        for one in (champion, challenger):
            if one.batchpoint.model_map is not None:
                message = f"Deployment {one.name} has a model map, and only single models are compared with each other."
                raise InvalidEntityError(f"{message} Invoke it without a challenger.")
        self._check_at_hand(challenger)
        return challenger

    def _check_at_hand(self, deployment: BatchDeployment) -> None:
        """Look whether model, code and environment are at hand."""
        if isinstance(deployment.model, str):
            self._assets.check_readable(self._assets.resolve("model", deployment.model))
        if deployment.code_configuration is not None:
            self._assets.check_readable(self._assets.resolve("code", deployment.code_configuration.code))
        if isinstance(deployment.environment, str):
            self._assets.resolve("environment", deployment.environment)

    def _check_reference(self, deployment: BatchDeployment) -> None:
        """Look whether there is the job that predictions are checked against. What it held is read at the start."""
        options = deployment.batchpoint.quality
        if options.checks_changes and options.reference and not self._registry.jobs.exists(options.reference):
            message = f"quality.reference is {options.reference}, and there is no such job."
            raise InvalidEntityError(f"{message} {NAME_ANOTHER}")

    def _check_models(self, deployment: BatchDeployment) -> tuple[dict[str, str], Sequence[str]]:
        """Look for the models of a model map as of now; properties that keep this moment, and a notice."""
        model_map = deployment.batchpoint.model_map
        if model_map is None:
            return {}, []
        moment = self._model_maps.moment()
        found = len(self._model_maps.found(model_map, deployment.batchpoint.partition_keys, as_of=moment))
        notice = f"The model map has models for {found:,} {'key' if found == 1 else 'keys'}."
        return {AS_OF: str(moment), FOUND: str(found)}, [notice]

    def _stored(self, endpoint: BatchEndpoint, before: BatchEndpoint | None, by: str | None) -> BatchEndpoint:
        default = endpoint.defaults.deployment_name
        if default is not None:
            self._check_default(endpoint.name, default, exists=before is not None)
        endpoint = endpoint.model_copy(update={"provisioning_state": "Succeeded"})
        return self._registry.endpoints.put(endpoint, by=by, seen=before)

    def _check_default(self, endpoint_name: str, deployment_name: str, *, exists: bool) -> None:
        try:
            if exists:
                self._registry.deployments.get(endpoint_name, deployment_name)
                return
        except NotFoundError:
            pass  # told below, in terms of what to do
        raise NotFoundError(
            f"Endpoint {endpoint_name} cannot have {deployment_name} as its default deployment: it has none of that "
            "name. Create the endpoint without a default, then the deployment, and set the default last.",
            kind="deployment",
            name=deployment_name,
            endpoint=endpoint_name,
            on_command_line="batchpoint deployment create … --set-default",
        )


def _only_models(deployment: PipelineDeployment, what: str) -> InvalidEntityError:
    message = f"Deployment {deployment.name} runs a pipeline, which cannot be {what}: only model deployments can."
    return InvalidEntityError(message)
