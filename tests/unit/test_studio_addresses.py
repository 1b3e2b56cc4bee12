"""The page of each thing."""

from __future__ import annotations

from typing import Any

import pytest

from batchpoint.cli.records import record
from batchpoint.entities.assets import Environment, Model
from batchpoint.entities.base import Entity
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.jobs import Job
from batchpoint.entities.resources import Compute, Datastore
from batchpoint.entities.schedules import Schedule
from batchpoint.entities.webhooks import Webhook

SCHEDULE: dict[str, Any] = {
    "name": "nightly",
    "trigger": {"type": "cron", "expression": "0 2 * * *"},
    "create_job": {"type": "invoke", "endpoint_name": "churn"},
}


@pytest.mark.parametrize(
    ("entity", "page"),
    [
        (BatchEndpoint(name="churn"), "endpoints/churn"),
        (BatchDeployment.model_validate({"name": "blue", "endpoint_name": "churn"}), "endpoints/churn"),
        (Job(name="one"), "jobs/one"),
        (Model(name="churn", version="3", path="m.pkl"), "assets/model/churn?version=3"),
        (Environment(name="sk", version="1", image="x"), "assets/environment/sk?version=1"),
        (Datastore.model_validate({"name": "lake", "type": "local", "path": "/lake"}), "datastores/lake/files"),
        (Compute(name="cpu", max_instances=1), "computes"),
        (Schedule.model_validate(SCHEDULE), "schedules/nightly"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Entity) else "",
)
def test_the_command_line_prints_where_the_studio_shows_a_thing(entity: Entity, page: str) -> None:
    assert record(entity, "http://host:1", "default")["studio"] == f"http://host:1/studio/{page}"
    mark = "&" if "?" in page else "?"
    elsewhere = record(entity, "http://host:1", "sales")
    assert elsewhere["studio"] == f"http://host:1/studio/{page}{mark}workspace=sales"
    if isinstance(entity, Job):
        assert elsewhere["services"]["Studio"]["endpoint"] == elsewhere["studio"]


def test_what_has_no_page_tells_of_none() -> None:
    webhook = Webhook.model_validate({"name": "ops", "url": "https://example.com/hook", "events": ["job.failed"]})
    assert "studio" not in record(webhook, "http://host:1", "default")
