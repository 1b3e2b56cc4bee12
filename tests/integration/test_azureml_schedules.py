"""Schedules in the Azure ML dialect, with bodies as its client sends them; the same ones as ``/api/v1`` shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchpoint.entities.jobs import Input, Output
from batchpoint.entities.pipelines import CommandStep, Pipeline
from batchpoint.entities.schedules import Schedule, ScheduledInvoke, ScheduledJob, ScheduleOptions
from batchpoint.entities.triggers import CronTrigger, FileTrigger
from batchpoint.errors import NotFoundError
from batchpoint.workspace import Workspace
from integration.azure_wire import WS, azure_client

COMMAND = {"jobType": "Command", "command": "echo ${{inputs.word}}", "inputs": {}, "experimentName": "said"}
MONDAYS = {
    "triggerType": "Recurrence", "frequency": "week", "interval": 1, "timeZone": "Eastern Standard Time",
    "startTime": "2035-01-01 10:00:00", "schedule": {"hours": [10, 12], "minutes": [0, 30], "weekDays": ["monday"]},
}  # fmt: skip
CRON = {
    "triggerType": "Cron", "expression": "15 10 * * 1", "timeZone": "UTC",
    "startTime": "2035-01-01T00:00:00", "endTime": "2036-01-01T00:00:00",
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("churn")


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    with azure_client(workspace) as made:
        yield made


def body_of(definition: dict[str, Any], trigger: dict[str, Any] = MONDAYS, **properties: Any) -> dict[str, Any]:
    action = {"actionType": "CreateJob", "jobDefinition": definition}
    return {"properties": {"tags": {"a": "b"}, "properties": {}, "action": action, "trigger": trigger, **properties}}


def word(value: str = "hello") -> dict[str, Any]:
    return {**COMMAND, "inputs": {"word": {"jobInputType": "literal", "value": value}}}


def put(client: httpx.Client, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Store a schedule and ask for it, as the client does."""
    answered = client.put(f"{WS}/schedules/{name}", json=body)
    assert answered.status_code == 201, answered.text
    assert client.get(answered.headers["Azure-AsyncOperation"]).json() == {"status": "Succeeded"}
    found: dict[str, Any] = client.get(f"{WS}/schedules/{name}").json()
    return found


def names(client: httpx.Client, **params: str) -> list[str]:
    return [each["name"] for each in client.get(f"{WS}/schedules", params=params).json()["value"]]


def test_a_schedule_is_created_enabled_with_times_of_its_zone(client: httpx.Client, workspace: Workspace) -> None:
    shown = put(client, "mondays", body_of(word(), description="early", displayName="Mondays"))
    assert shown["id"] == f"{WS}/schedules/mondays"
    properties = shown["properties"]
    assert (properties["isEnabled"], properties["provisioningState"]) == (True, "Succeeded")
    assert properties["trigger"] == {**MONDAYS, "startTime": "2035-01-01T10:00:00"}
    assert properties["action"]["jobDefinition"]["command"] == "echo ${{inputs.word}}"
    assert (properties["displayName"], properties["description"], properties["tags"]) == (
        "Mondays",
        "early",
        {"a": "b"},
    )
    stored = workspace.schedules.get("mondays")
    assert stored.next_run_at is not None
    assert stored.next_run_at.isoformat() == "2035-01-01T15:00:00+00:00"


def test_a_schedule_sent_back_as_it_was_read_is_disabled_and_enabled(client: httpx.Client) -> None:
    put(client, "s1", body_of(word(), CRON))
    read = client.get(f"{WS}/schedules/s1").json()
    read["properties"]["isEnabled"] = False
    assert put(client, "s1", read)["properties"]["isEnabled"] is False
    assert (names(client), names(client, listViewType="DisabledOnly")) == ([], ["s1"])
    read["properties"]["isEnabled"] = True
    assert put(client, "s1", read) == {**read, "systemData": client.get(f"{WS}/schedules/s1").json()["systemData"]}
    assert (names(client), names(client, listViewType="All")) == (["s1"], ["s1"])


def test_the_job_of_a_schedule_that_is_triggered_is_told(client: httpx.Client, workspace: Workspace) -> None:
    put(client, "s1", body_of(word()))
    answered = client.post(f"{WS}/schedules/s1/trigger", json={"scheduleTime": "2026-01-01T00:00:00"}).json()
    assert answered["scheduleActionType"] == "CreateJob"
    job = workspace.jobs.get(answered["submissionId"])
    assert (job.schedule_name, job.literals, job.experiment_name) == ("s1", {"word": "hello"}, "said")


def test_an_enabled_schedule_is_deleted_once_it_is_disabled(client: httpx.Client) -> None:
    read = put(client, "s1", body_of(word()))
    refused = client.delete(f"{WS}/schedules/s1")
    assert refused.status_code == 409
    assert "Disable it first" in refused.json()["error"]["message"]
    read["properties"]["isEnabled"] = False
    put(client, "s1", read)
    assert client.delete(f"{WS}/schedules/s1").status_code == 200
    assert client.delete(f"{WS}/schedules/s1").status_code == 204
    assert client.get(f"{WS}/schedules/s1").status_code == 404


@pytest.mark.parametrize("source", ["azureml:first", f"{WS}/jobs/first"])
def test_a_schedule_repeats_a_job_that_is_named(client: httpx.Client, workspace: Workspace, source: str) -> None:
    workspace.pipelines.submit(Pipeline(name="first", jobs={"say": CommandStep(command="echo hi")}))
    definition = {"jobType": "Pipeline", "sourceJobId": source, "experimentName": "", "isArchived": False}
    shown = put(client, "again", body_of(definition))["properties"]["action"]["jobDefinition"]
    assert (shown["jobType"], shown["sourceJobId"]) == ("Pipeline", f"{WS}/jobs/first")
    assert workspace.schedules.get("again").create_job == ScheduledJob(job="azureml:first")
    answered = client.post(f"{WS}/schedules/again/trigger").json()
    assert workspace.jobs.get(answered["submissionId"]).experiment_name == "again"


def test_inputs_beside_a_named_job_take_the_place_of_its_own(client: httpx.Client, workspace: Workspace) -> None:
    step = CommandStep(command="echo ${{inputs.n}}", inputs={"n": "${{parent.inputs.n}}"})
    workspace.pipelines.submit(Pipeline(name="first", inputs={"n": "1"}, jobs={"say": step}))
    definition = {
        "jobType": "Pipeline", "sourceJobId": "azureml:first",
        "inputs": {"n": {"jobInputType": "literal", "value": "2"}},
    }  # fmt: skip
    put(client, "again", body_of(definition))
    answered = client.post(f"{WS}/schedules/again/trigger").json()
    assert workspace.jobs.get(answered["submissionId"]).literals == {"n": "2"}


def test_our_options_are_properties_and_survive_a_client_that_knows_nothing_of_them(
    client: httpx.Client, workspace: Workspace
) -> None:
    body = body_of(word(), properties={"batchpoint.overlap": "skip", "mine": "1"})
    put(client, "s1", body)
    stored = workspace.schedules.get("s1")
    assert stored.batchpoint == ScheduleOptions(overlap="skip")
    assert stored.properties == {"mine": "1"}
    shown = client.get(f"{WS}/schedules/s1").json()
    assert shown["properties"]["properties"] == {"mine": "1", "batchpoint.overlap": "skip"}
    put(client, "s1", body_of(word("other")))
    assert workspace.schedules.get("s1").batchpoint.overlap == "skip"


def test_a_schedule_for_files_is_shown_and_disabled_without_losing_what_it_watches(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "incoming").mkdir()
    watched = Schedule(
        name="files",
        trigger=FileTrigger(path=str(tmp_path / "incoming")),
        create_job=ScheduledInvoke(endpoint_name="churn"),
    )
    workspace.schedules.create_or_update(watched)
    read = client.get(f"{WS}/schedules/files").json()
    assert read["properties"]["action"]["actionType"] == "InvokeBatchEndpoint"
    read["properties"]["isEnabled"] = False
    put(client, "files", read)
    stored = workspace.schedules.get("files")
    assert stored.is_enabled is False
    assert stored.trigger == watched.trigger
    assert isinstance(stored.create_job, ScheduledInvoke)
    assert stored.create_job.inputs == {"input": Input(path="{{files}}")}


def test_steps_written_in_place_survive_a_client_that_cannot_say_them(
    client: httpx.Client, workspace: Workspace
) -> None:
    pipeline = {"jobs": {"say": {"command": "echo hi"}, "too": {"command": "echo ho"}}}
    native = Schedule(name="s1", trigger=CronTrigger(expression="0 0 * * *"), create_job=ScheduledJob(job=pipeline))
    workspace.schedules.create_or_update(native)
    read = client.get(f"{WS}/schedules/s1").json()
    assert list(read["properties"]["action"]["jobDefinition"]["jobs"]) == ["say", "too"]
    read["properties"]["isEnabled"] = False
    put(client, "s1", read)
    assert workspace.schedules.get("s1").create_job == native.create_job


ROWS = {"jobInputType": "UriFolder", "uri": "azureml://datastores/workspaceblobstore/paths/in/"}


def invoke_of(definition: dict[str, Any], **properties: Any) -> dict[str, Any]:
    action = {"actionType": "InvokeBatchEndpoint", "endpointInvocationDefinition": definition}
    return {"properties": {"action": action, "trigger": CRON, **properties}}


def test_a_schedule_that_invokes_an_endpoint_is_stored_shown_and_run(
    client: httpx.Client, workspace: Workspace
) -> None:
    asked = {
        "InputData": {"rows": ROWS}, "MiniBatchSize": "7", "retrySettings": {"timeout": "PT1M"},
        "outputData": {"score": {"jobOutputType": "UriFile", "uri": f"{ROWS['uri']}{{{{window_start:%Y}}}}.csv"}},
        "properties": {"batchpoint.passthrough": '["a"]'},
    }  # fmt: skip
    named = {"endpointName": f"{WS}/batchEndpoints/churn", "deploymentName": "blue"}
    shown = put(client, "hourly", invoke_of({**named, "properties": asked}))
    action = shown["properties"]["action"]
    assert (action["actionType"], shown["properties"]["isEnabled"]) == ("InvokeBatchEndpoint", True)
    said = action["endpointInvocationDefinition"]
    assert (said["endpointName"], said["deploymentName"]) == ("churn", "blue")
    assert said["properties"] == {
        "inputData": {"rows": ROWS}, "outputData": asked["outputData"], "miniBatchSize": 7,
        "retrySettings": {"timeout": "PT60S"}, "properties": {"batchpoint.passthrough": '["a"]'}, "tags": {},
    }  # fmt: skip
    plan = workspace.schedules.get("hourly").create_job
    assert isinstance(plan, ScheduledInvoke)
    assert plan.inputs == {"rows": Input(type="uri_folder", path=ROWS["uri"])}
    assert (plan.overrides.mini_batch_size, plan.overrides.passthrough) == (7, ["a"])
    assert names(client) == ["hourly"]
    place = workspace.places.resolve(f"{ROWS['uri']}a.csv")
    workspace.stores().write_bytes(place.url, b"a\n1\n")
    answered = client.post(f"{WS}/schedules/hourly/trigger", json={}).json()
    assert answered["scheduleActionType"] == "InvokeBatchEndpoint"
    job = workspace.jobs.get(answered["submissionId"])
    assert (job.endpoint_name, job.deployment_name) == ("churn", "blue")


def test_a_schedule_of_an_invoke_is_changed_disabled_and_deleted_and_keeps_what_the_wire_cannot_say(
    client: httpx.Client, workspace: Workspace
) -> None:
    native = {
        "name": "hourly", "trigger": {"type": "cron", "expression": "0 * * * *"},
        "create_job": {"type": "invoke", "endpoint_name": "churn", "challenger": "blue", "inputs": {"rows": {
            "path": "azureml://datastores/workspaceblobstore/paths/in", "include": ["*.csv"]}}},
    }  # fmt: skip
    stored = workspace.schedules.create_or_update(Schedule.model_validate(native))
    read = client.get(f"{WS}/schedules/hourly").json()
    said = read["properties"]["action"]["endpointInvocationDefinition"]
    assert said["properties"]["inputData"]["rows"]["uri"] == "azureml://datastores/workspaceblobstore/paths/in"
    read["properties"]["isEnabled"] = False
    put(client, "hourly", read)
    assert workspace.schedules.get("hourly").create_job == stored.create_job
    assert names(client, listViewType="DisabledOnly") == ["hourly"]
    said["deploymentName"] = "blue"
    put(client, "hourly", read)
    plan = workspace.schedules.get("hourly").create_job
    assert isinstance(plan, ScheduledInvoke)
    assert (plan.deployment_name, plan.challenger) == ("blue", "blue")
    put(client, "hourly", body_of(word()))
    assert isinstance(workspace.schedules.get("hourly").create_job, ScheduledJob)
    assert client.delete(f"{WS}/schedules/hourly").status_code == 200


def test_what_a_put_leaves_out_of_an_invoke_is_gone_but_for_what_the_wire_cannot_say(
    client: httpx.Client, workspace: Workspace
) -> None:
    lake = "azureml://datastores/workspaceblobstore/paths"
    invoke = {
        "type": "invoke", "endpoint_name": "churn", "deployment_name": "blue", "challenger": "blue",
        "experiment_name": "x", "description": "early", "tags": {"a": "b"}, "literals": {"n": 1},
        "inputs": {"rows": {"path": f"{lake}/in", "include": ["*.csv"]}, "more": {"path": f"{lake}/b"}},
        "outputs": {"score": {"path": f"{lake}/out", "asset_name": "scored"}},
        "overrides": {"mini_batch_size": 7, "passthrough": ["a"]},
    }  # fmt: skip
    native = {"name": "hourly", "trigger": {"type": "cron", "expression": "0 * * * *"}, "create_job": invoke}
    workspace.schedules.create_or_update(Schedule.model_validate(native))

    def plan_after(properties: dict[str, Any] | None) -> ScheduledInvoke:
        said = {"endpointName": "churn", **({} if properties is None else {"properties": properties})}
        put(client, "hourly", invoke_of(said))
        plan = workspace.schedules.get("hourly").create_job
        assert isinstance(plan, ScheduledInvoke)
        return plan

    moved = {"jobOutputType": "UriFile", "uri": f"{lake}/else"}
    plan = plan_after({"inputData": {"rows": {"uri": f"{lake}/new"}}, "outputData": {"score": moved}})
    assert plan.inputs == {"rows": Input(path=f"{lake}/new", include=["*.csv"])}
    assert plan.outputs == {"score": Output(type="uri_file", path=f"{lake}/else", asset_name="scored")}
    gone = ScheduledInvoke(endpoint_name="churn", challenger="blue")
    assert plan.model_copy(update={"inputs": {}, "outputs": {}}).model_dump() == gone.model_dump()
    assert plan_after({"inputData": {}}).model_dump() == gone.model_dump()
    assert plan_after(None).model_dump() == gone.model_dump()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (body_of(word(), {**CRON, "expression": "60 * * * *"}), "60"),
        (body_of(word(), {**MONDAYS, "timeZone": "Eastern Time"}), "is not a known time zone"),
        (body_of({"jobType": "Spark"}), "jobType is 'Spark'"),
        (body_of({"jobType": "Pipeline", "sourceJobId": "azureml:none"}), "none"),
        ({"properties": {"action": {"actionType": "ImportData"}, "trigger": CRON}}, "'ImportData'"),
        ({"properties": {"trigger": CRON}}, "create_job"),
        (invoke_of({}), "endpointName"),
        ({"properties": {"action": {"actionType": "InvokeBatchEndpoint"}, "trigger": CRON}}, "endpointName"),
        (invoke_of({"endpointName": "none"}), "none"),
        (invoke_of({"endpointName": "churn", "deploymentName": "red"}), "red"),
        (invoke_of({"endpointName": "churn", "properties": {"name": "mine"}}), "job_name"),
        (invoke_of({"endpointName": "churn", "properties": {"miniBatchSize": "many"}}), "mini_batch_size"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said(
    client: httpx.Client, workspace: Workspace, body: dict[str, Any], said: str
) -> None:
    answered = client.put(f"{WS}/schedules/wrong", json=body)
    assert answered.status_code in {404, 422}, answered.text
    assert said in answered.json()["error"]["message"]
    with pytest.raises(NotFoundError):
        workspace.schedules.get("wrong")
