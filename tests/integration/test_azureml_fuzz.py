"""Seeded nonsense for every route of the dialect that takes a body."""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx

from batchpoint.background.service import Background
from batchpoint.server.app import create_app
from batchpoint.server.context import Context
from integration.azure_wire import SHORT, WS, azure_client, upload
from integration.served import open_workspace

STEP = {
    "name": "say", "type": "command", "componentId": f"{WS}/components/fuzz/versions/1", "limits": {"timeout": 60},
    "inputs": {"word": {"job_input_type": "literal", "value": "${{parent.inputs.word}}"}}, "resources": {},
    "outputs": {"out": {"type": "literal", "value": "${{parent.outputs.out}}"}}, "environment_variables": {"a": "b"},
}  # fmt: skip
PIPELINE = {
    "jobType": "Pipeline", "displayName": "p", "experimentName": "e", "tags": {}, "properties": {}, "isArchived": False,
    "settings": {"default_compute": f"{WS}/computes/local", "_source": "YAML.JOB"}, "jobs": {"say": STEP},
    "inputs": {"word": {"jobInputType": "literal", "value": "hello"}},
    "outputs": {"out": {"jobOutputType": "uri_folder", "mode": "ReadWriteMount"}},
}  # fmt: skip
ABOUT = {"description": "d", "tags": {"a": "b"}, "properties": {"p": "q"}, "isAnonymous": False, "isArchived": False}
COMMAND = {
    "jobType": "Command", "displayName": "say", "command": "echo ${{inputs.word}}", "experimentName": "said",
    "inputs": {"word": {"jobInputType": "literal", "value": "hello"}}, "limits": {"timeout": "PT5M"},
    "outputs": {"out": {"jobOutputType": "uri_folder", "mode": "ReadWriteMount"}}, "tags": {"t": "1"},
    "environmentVariables": {"a": "b"}, "resources": {"instanceCount": 1}, "properties": {"p": "1"},
}  # fmt: skip
SAY = {
    "name": "say", "version": "1", "type": "command", "display_name": "Say", "is_deterministic": True,
    "inputs": {"word": {"type": "string", "default": "hello"}}, "outputs": {"out": {"type": "uri_folder"}},
    "command": "echo ${{inputs.word}} > ${{outputs.out}}/a",
    "environment": f"azureml:{WS}/environments/fuzz/versions/1",
}  # fmt: skip
SCORE = {
    "name": "score", "version": "1", "type": "parallel", "inputs": {"files": {"type": "uri_folder"}},
    "outputs": {"scored": {"type": "uri_file"}}, "input_data": "${{inputs.files}}", "mini_batch_size": "2",
    "resources": {"instance_count": 1}, "max_concurrency_per_instance": 2, "error_threshold": 5,
    "mini_batch_error_threshold": 3, "retry_settings": {"timeout": 60, "max_retries": 2}, "logging_level": "INFO",
    "task": {"type": "run_function", "code": f"azureml:{WS}/codes/fuzz/versions/1", "entry_script": "score.py",
             "program_arguments": "--flag 1", "append_row_to": "${{outputs.scored}}",
             "environment": f"azureml:{WS}/environments/fuzz/versions/1"},
}  # fmt: skip
WHOLE = {
    "name": "whole", "version": "1", "type": "pipeline", "inputs": {"word": {"type": "string"}},
    "outputs": {"out": {"type": "uri_folder"}}, "jobs": {"say": STEP},
}  # fmt: skip
COMPUTE = {
    "vmSize": "Standard_DS3_v2", "vmPriority": "LowPriority", "remoteLoginPortPublicAccess": "Enabled",
    "subnet": {"id": "s"},
    "scaleSettings": {"maxNodeCount": 3, "minNodeCount": 0, "nodeIdleTimeBeforeScaleDown": "PT2M"},
}  # fmt: skip
BLOB_STORE = {
    "datastoreType": "AzureBlob", "accountName": "acct", "containerName": "c", "endpoint": "core.windows.net",
    "protocol": "https", "credentials": {"credentialsType": "AccountKey", "secrets": {"key": "a2V5"}},
}  # fmt: skip
MODEL_DEPLOYMENT = {
    "description": "d", "model": {"referenceType": "Id", "assetId": f"{WS}/models/fuzz/versions/1"},
    "environmentId": f"{WS}/environments/fuzz/versions/1", "compute": f"{WS}/computes/local",
    "codeConfiguration": {"codeId": f"{WS}/codes/fuzz/versions/1", "scoringScript": "score.py"},
    "resources": {"instanceCount": 1, "properties": {}}, "maxConcurrencyPerInstance": 2, "miniBatchSize": 2,
    "outputAction": "AppendRow", "outputFileName": "p.csv", "errorThreshold": -1, "loggingLevel": "info",
    "retrySettings": {"maxRetries": 3, "timeout": "PT5M"}, "environmentVariables": {"X": "1"}, "properties": {},
}  # fmt: skip
PIPELINE_DEPLOYMENT = {
    "description": "d", "deploymentConfiguration": {
        "deploymentConfigurationType": "PipelineComponent", "settings": {"default_compute": "local"},
        "componentId": {"referenceType": "Id", "assetId": f"{WS}/components/valid2/versions/1"}},
}  # fmt: skip
INVOKE = {
    "inputData": {"in": {"jobInputType": "UriFolder", "uri": f"{SHORT}/src"}}, "tags": {"a": "b"},
    "outputData": {"score": {"jobOutputType": "UriFile", "uri": f"{SHORT}/out/p.csv"}}, "description": "d",
    "properties": {"experimentName": "e"}, "errorThreshold": -1, "miniBatchSize": "20", "loggingLevel": "info",
    "retrySettings": {"maxRetries": 1, "timeout": "PT30S"}, "compute": {"instanceCount": 1}, "partitionKeys": [],
}  # fmt: skip
MONDAYS = {
    "triggerType": "Recurrence", "frequency": "week", "interval": 1, "timeZone": "Eastern Standard Time",
    "startTime": "2035-01-01 10:00:00", "schedule": {"hours": [10], "minutes": [0], "weekDays": ["monday"]},
}  # fmt: skip
CRON = {"triggerType": "Cron", "expression": "15 10 * * 1", "timeZone": "UTC", "endTime": "2036-01-01T00:00:00"}
CONDA = "name: x\ndependencies:\n- python=3.11\n- pip:\n  - pandas"
HASHED = {"hash_sha256": "ab", "hash_version": 202208}


def resource(properties: dict[str, Any], **about: Any) -> dict[str, Any]:
    return {"location": "local", "tags": {"a": "b"}, "properties": properties, **about}


def scheduled(job: dict[str, Any], trigger: dict[str, Any]) -> dict[str, Any]:
    action = {"actionType": "CreateJob", "jobDefinition": job}
    return resource({**ABOUT, "displayName": "s", "isEnabled": True, "action": action, "trigger": trigger})


BODIES: dict[str, list[dict[str, Any]]] = {
    "azureml.computes.create_or_update": [
        resource(
            {"description": "d", "computeType": "AmlCompute", "properties": COMPUTE},
            identity={"type": "SystemAssigned"},
        )
    ],
    "azureml.datastores.create_or_update": [resource({**BLOB_STORE, **ABOUT})],
    "azureml.models.create_or_update": [resource({"modelType": "custom_model", "modelUri": f"{SHORT}/m", **ABOUT})],
    "azureml.data.create_or_update": [resource({"dataType": "uri_file", "dataUri": f"{SHORT}/m", **ABOUT})],
    "azureml.environments.create_or_update": [resource({"image": "ubuntu", "condaFile": CONDA, **ABOUT})],
    "azureml.codes.create_or_update": [
        resource({"codeUri": f"{SHORT}/src", "isAnonymous": True, "properties": HASHED})
    ],
    "azureml.components.create_or_update": [resource({**ABOUT, "componentSpec": spec}) for spec in (SAY, SCORE, WHOLE)],
    "azureml.endpoints.create_or_update": [
        resource({"description": "d", "authMode": "aadToken", "properties": {}, "defaults": {"deploymentName": "blue"}})
    ],
    "azureml.deployments.create_or_update": [resource(MODEL_DEPLOYMENT), resource(PIPELINE_DEPLOYMENT)],
    "azureml.invoke": [resource(INVOKE)],
    "azureml.jobs.create_or_update": [resource(PIPELINE), resource(COMMAND)],
    "azureml.runs.data": [{"runId": "said", "selectRunMetadata": True}],
    "azureml.runs.update": [{**ABOUT, "displayName": "s", "hidden": False}],
    "azureml.runs.resolved": [{"values": ["azureml://jobs/said/outputs/out", "azureml://elsewhere"]}],
    "azureml.schedules.create_or_update": [scheduled(PIPELINE, MONDAYS), scheduled(COMMAND, CRON)],
}
"""For each route that takes one, bodies that the client would send. A route that is not named is sent all of them."""

WHOLE_BODIES = (
    b"", b" ", b"[]", b"null", b"5", b'"x"', b"{", b'{"properties":', b"{}", b"\x00", b"\xff\xfe", b"[" * 5000,
    b"a=1&b=2", b'{"a":' * 3000, b'{"properties": NaN}', b'{"properties": 1e999}',
    b'{"properties": ' + b"9" * 5000 + b"}", b'{"properties": {}, "properties": []}',
    b'\xef\xbb\xbf{"properties": {}}', b'{"properties": "\\ud800"}', b"<BlockList><Latest>\xff</Latest>",
    '{"properties": {}}'.encode("utf-16"), '{"tags": {"\u00e4": "\u00f6"}}'.encode("latin-1"),
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 2**31, 2**63, 10**400, 1e308, "", " ", "x", "x" * 30_000, "\x00", "a\x00b", "\ud800", "\n",
    "1", "NaN", "-inf", "9" * 400, "${{", "${{parent.jobs.none.outputs.y}}", "azureml:", "azureml:x:y:z", "azureml://",
    "../..", "/subscriptions//", f"{WS}/models/x", "PT", "P9999999999D", "9999-12-31T23:59:59", "0000-00-00", "http://[",
    "s3://", "file:///etc/passwd", "azureml://datastores/none/paths/x", "azureml://jobs/none/outputs/x", [], {},
    [None], [[[]]],
    [{}], {"": ""}, {"x": None}, {"\x00": {"type": 5}}, ["x", 5], json.loads("[" * 45 + "]" * 45),
    json.loads('{"x":' * 70 + "1" + "}" * 70),
)  # fmt: skip
PARAMETERS = {
    "subscription": "s", "resource_group": "g", "workspace": "default", "endpoint": "churn", "deployment": "blue",
    "name": "fuzz", "version": "1", "job": "said", "run": "said", "experiment": "e", "container": "azureml-blobstore",
}  # fmt: skip
"""What stands in addresses. The last of those that are left, and what is not named here, is made up."""
SEED = 4
EACH = 35
"""Bodies that each route is sent."""


def places_in(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value within a body, from the whole of it to the innermost."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places_in(item, (*place, key))


def spoilt(body: Any, chance: random.Random) -> Any:
    """The same with one value that is nonsense, missing, there under another name, or there once more."""
    place = chance.choice(list(places_in(body)))
    if not place:
        return chance.choice(VALUES)
    body = copy.deepcopy(body)
    holder = body
    for key in place[:-1]:
        holder = holder[key]
    act = chance.choice(["replace", "replace", "replace", "drop", "rename", "wrap"])
    value = holder[place[-1]]
    if act == "replace" or isinstance(holder, list):
        holder[place[-1]] = chance.choice(VALUES)
    elif act == "wrap":
        holder[place[-1]] = chance.choice([[value], {"x": value}, json.dumps(value)])
    else:
        del holder[place[-1]]
        if act == "rename":
            holder[chance.choice(["x", "", "\x00", place[-1].upper()])] = value
    return body


def bodies_for(name: str, chance: random.Random) -> Iterator[bytes]:
    yield from chance.sample(WHOLE_BODIES, 8)
    known = BODIES.get(name) or [*itertools.chain.from_iterable(BODIES.values())]
    for _ in range(EACH):
        yield json.dumps(spoilt(chance.choice(known), chance)).encode()


def address_of(path: str, last: str | None = None) -> str:
    """The address of a route; ``last`` stands for the parameter that names what it is about."""
    found = re.findall(r"{(\w+)(?::path)?}", path)
    names = [name for name in found if name != "version"]
    values = {name: PARAMETERS.get(name, "x") for name in found}
    if last is not None:
        values[names[-1]] = last
    return re.sub(r"{(\w+)(?::path)?}", lambda match: values[match[1]], path)


def fault_of(answered: httpx.Response) -> str | None:
    """What is wrong with an answer: it may refuse, in the words of the dialect, and that is all."""
    if answered.status_code >= 500:
        return "an accident"
    if answered.status_code < 400 or answered.request.method == "HEAD":
        return None
    if ".blob.core.windows.net/" in str(answered.request.url):
        return None if ET.fromstring(answered.content).findtext("Message") else "no message"
    error = answered.json()["error"]
    return None if set(error) == {"code", "message"} and error["code"] and error["message"] else "another shape"


def test_whatever_is_sent_no_route_has_an_accident_and_what_is_stored_of_it_can_be_shown(tmp_path: Path) -> None:
    """The routes are those of the application, so that a new one is sent nonsense, too."""
    chance = random.Random(SEED)
    with open_workspace(tmp_path / "home") as workspace, azure_client(workspace) as client:
        upload(workspace, "m")
        upload(workspace, "src/score.py", b"def init():\n    pass\n\n\ndef run(mini_batch):\n    return []\n")
        app = create_app(Context(workspace, Background(workspace), server_id="s", shares_files=True))
        parts = [getattr(getattr(part, "original_router", part), "routes", [part]) for part in app.routes]
        routes = [
            (method, route.name, route.path)
            for route in itertools.chain.from_iterable(parts)
            if getattr(route, "name", "").startswith("azureml.")
            for method in route.methods
        ]
        assert len(routes) > 50
        reads = [path for method, name, path in routes if method == "GET" and name != "azureml.token"]
        writes = [route for route in routes if route[0] in ("PUT", "POST", "PATCH")]
        for method, name, path in writes:
            for number, known in enumerate(BODIES.get(name, [])):
                answered = client.request(method, address_of(path, f"valid{number}" if number else None), json=known)
                assert answered.is_success, f"{name}: {answered.text}"
        faults = []

        def look(method: str, address: str, **sent: Any) -> httpx.Response:
            answered = client.request(method, address, **sent)
            if (fault := fault_of(answered)) is not None:
                faults.append(
                    f"{fault}: {method} {address} {str(sent)[:400]}: {answered.status_code} {answered.text[:400]}"
                )
            return answered

        for method, name, path in writes:
            for number, body in enumerate(bodies_for(name, chance)):
                address = address_of(path, chance.choice([None, f"fuzz{number}"]))
                query = {"comp": chance.choice(["", "block", "blocklist", "metadata", "x"]), "blockid": "\x00"}
                if look(method, address, content=body, params=query).is_success:
                    look("GET", address)
        for path in reads:
            look("GET", address_of(path))
        for kind in ("computes", "datastores", "models", "components", "endpoints", "schedules", "jobs"):
            assert client.get(f"/api/v1/{kind}").status_code == 200
        assert faults == []
