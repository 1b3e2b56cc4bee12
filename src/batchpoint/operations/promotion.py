"""When a comparison speaks for a challenger, and what is kept of a promotion: pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from batchpoint.entities.comparisons import Comparison
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, EndpointDefaults
from batchpoint.entities.jobs import Job
from batchpoint.entities.pipeline_deployments import AnyDeployment
from batchpoint.errors import ConflictError, NotFoundError

PROMOTIONS = "promotions"
"""Property of an endpoint: its promotions as JSON, the newest first."""
KEPT = 20
"""Promotions that are kept."""


def newest_comparing(jobs: Iterable[Job], challenger: str, champion: str | None) -> Job:
    """The first of these jobs that compared a challenger with this champion.

    Raises:
        NotFoundError: none did.
    """
    for job in jobs:
        if job.challenger is not None and (job.challenger.name, job.deployment_name) == (challenger, champion):
            return job
    raise NotFoundError(
        f"No completed job has compared {challenger} with the present default, {champion}. "
        f"Invoke the endpoint with {challenger} as the challenger first.",
        kind="comparison",
        name=challenger,
        on_command_line=f"batchpoint endpoint invoke … --challenger {challenger}",
    )


def check_speaks_for(
    job: Job,
    comparison: Comparison,
    endpoint: BatchEndpoint,
    wanted: AnyDeployment,
    if_agreement: float | None,
    *,
    champion: AnyDeployment | None,
) -> None:
    """Check that a job compared this very deployment with the present default, and that they agree enough.

    Args:
        job: The job.
        comparison: What it found.
        endpoint: The endpoint.
        wanted: The deployment that is to answer by default.
        if_agreement: Share of the results that have to agree.
        champion: The deployment that answers by default now.

    Raises:
        ConflictError: it does not; the message says what differs.
    """
    default = endpoint.defaults.deployment_name
    compared = job.endpoint_name, job.challenger.name if job.challenger else None, job.deployment_name
    if compared != (endpoint.name, wanted.name, default):
        raise ConflictError(
            f"Job {job.name} compared {compared[1]} with {compared[2]} of endpoint {compared[0]}; to be promoted is "
            f"{wanted.name}, in place of {default} of endpoint {endpoint.name}. Invoke with that challenger first."
        )
    for then, now in ((job.challenger, wanted), (job.deployment, champion)):
        if then is not None and now is not None and _scorer(then) != _scorer(now):
            raise ConflictError(
                f"Deployment {now.name} has changed since job {job.name} compared it. Compare it as it is now."
            )
    if if_agreement is not None and comparison.agreement_of_all < if_agreement:
        raise ConflictError(
            f"Deployment {wanted.name} agrees with {default} in {comparison.agreement_of_all:.2%} of its "
            f"{comparison.items:,} results, by job {job.name}; asked for were {if_agreement:.2%}. Nothing was changed."
        )


def promoted(
    endpoint: BatchEndpoint, deployment: str, comparison: Comparison | None, *, at: datetime, by: str | None
) -> BatchEndpoint:
    """The endpoint with another default, and a note of it in its properties."""
    note = {
        "deployment": deployment,
        "before": endpoint.defaults.deployment_name,
        "at": at.isoformat(timespec="seconds"),
        "by": by,
        "job": comparison.job if comparison else None,
        "agreement": comparison.agreement_of_all if comparison else None,
    }
    notes = [note, *json.loads(endpoint.properties.get(PROMOTIONS, "[]"))][:KEPT]
    changes = {
        "defaults": EndpointDefaults(deployment_name=deployment),
        "properties": {**endpoint.properties, PROMOTIONS: json.dumps(notes)},
    }
    return endpoint.model_copy(update=changes)


def _scorer(deployment: AnyDeployment) -> tuple[object, ...]:
    """What a deployment scores with."""
    if not isinstance(deployment, BatchDeployment):
        return (deployment.name,)
    variables = {**deployment.environment_variables, **deployment.settings.environment_variables}
    return deployment.model, deployment.code_configuration, deployment.environment, variables
