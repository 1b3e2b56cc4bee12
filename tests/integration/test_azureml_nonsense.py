"""Bodies that no client sends: each is refused with a reason, and none is an accident of the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest

from batchpoint.operations.resources import Resources
from batchpoint.storage.datastores import Stores
from integration.azure_wire import WS, azure_client
from integration.served import open_workspace


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    with open_workspace(tmp_path / "home") as workspace, azure_client(workspace) as found:
        yield found


ACTION = "CreateJob"
CONDA = "environments/e/versions/1"


@pytest.mark.parametrize(
    ("address", "properties"),
    [
        ("jobs/j", "x"),
        ("jobs/j", [["x"]]),
        ("jobs/j", {"jobType": "Command", "limits": {"timeout": "inf"}}),
        ("jobs/j", {"jobType": "Command", "limits": {"timeout": f"PT{'9' * 400}S"}}),
        ("schedules/s", {"action": "x"}),
        ("schedules/s", {"action": {"actionType": ACTION, "jobDefinition": {"sourceJobId": 5}}}),
        ("schedules/s", {"trigger": {"triggerType": ["Cron"]}, "action": {"actionType": ACTION, "jobDefinition": {}}}),
        ("components/c/versions/1", {"componentSpec": {"sourceJobId": ["x"]}}),
        (CONDA, {"image": "i", "condaFile": "[" * 2000}),
        (CONDA, {"image": "i", "condaFile": "a: &a [*a]"}),
        (CONDA, {"image": "i", "condaFile": "a: &a [x, x]\nb: [*a, *a]"}),
        (CONDA, {"image": "i", "condaFile": "a: .nan"}),
        (CONDA, {"image": "i", "condaFile": 'a: "\\ud800"'}),
        (CONDA, {"image": "i", "condaFile": "? 2020-01-01\n: x"}),
        (CONDA, {"image": "i", "condaFile": "a: !!set {b, c}\nd: !!binary aGVsbG8="}),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_with_a_reason(
    client: httpx.Client, address: str, properties: Any
) -> None:
    answered = client.put(f"{WS}/{address}", json={"properties": properties})
    assert answered.status_code == 422, answered.text
    assert answered.json()["error"]["message"]


@pytest.mark.parametrize("properties", ["x", 5, ["x"]])
def test_an_invoke_whose_own_properties_are_none_is_refused(client: httpx.Client, properties: Any) -> None:
    answered = client.post(f"{WS}/batchEndpoints/churn/jobs", json={"properties": {"properties": properties}})
    assert answered.status_code == 422, answered.text


def test_a_body_that_is_too_large_is_refused_in_the_words_of_the_dialect(client: httpx.Client) -> None:
    answered = client.put(f"{WS}/jobs/j", content=b"x" * 100_001)
    assert (answered.status_code, answered.json()["error"]["code"]) == (413, "RequestTooLarge")


@pytest.mark.parametrize("value", ["NaN", '{"a": Infinity}', '"\\ud800"', "[" * 50_000])
def test_an_option_that_json_cannot_say_breaks_no_later_answer(client: httpx.Client, value: str) -> None:
    body = {"properties": {"properties": {"batchpoint.output_format": value}}}
    answered = client.put(f"{WS}/batchEndpoints/churn/deployments/green", content=json.dumps(body))
    assert answered.status_code == 422, answered.text
    assert client.get(f"{WS}/batchEndpoints/churn/deployments").status_code == 200


def test_an_accident_of_the_server_is_told_in_the_words_of_the_interface_that_was_asked(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the server")

    for door in ("list", "get"):
        monkeypatch.setattr(Resources, door, fail)
    monkeypatch.setattr(Stores, "is_folder", fail)
    asked = {"X-Request-Id": "asked-1"}
    said = "Something went wrong in the server; its log has the details under request asked-1."
    ours = client.get("/api/v1/computes", headers=asked)
    assert (ours.status_code, ours.json()["error"]["code"], ours.json()["error"]["message"]) == (500, "error", said)
    theirs = client.get(f"{WS}/computes", headers=asked)
    assert (theirs.status_code, theirs.json()) == (500, {"error": {"code": "Error", "message": said}})
    blob = client.get("/default.blob.core.windows.net/azureml-blobstore/x", headers=asked)
    assert (blob.status_code, blob.headers["x-ms-error-code"]) == (500, "InternalError")
    assert ET.fromstring(blob.content).findtext("Message") == said
