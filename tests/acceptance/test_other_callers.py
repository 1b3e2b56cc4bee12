"""Other programs that call the server, as their pages of the documentation say: what they show is what runs here."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from console_fences import CHECKOUT, run_page
from shipped import Shipped

PAGES = CHECKOUT / "docs" / "how-to"


def fence_of(page: str, language: str) -> str:
    """The one fence of a page in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", (PAGES / page).read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


class PipelineFailedError(Exception):
    """A Fail activity was run, or a Web activity was refused."""


class _Output:
    """What an activity answered; parts of it are read as attributes, as expressions of Data Factory do."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getattr__(self, name: str) -> Any:
        found = self._value[name]
        return _Output(found) if isinstance(found, dict) else found


@dataclass
class Factory:
    """As much of Data Factory as the pipeline of the page needs. Its expressions are calls that Python reads, too."""

    parameters: dict[str, str]
    token: str
    trusted: ssl.SSLContext
    variables: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    tries: int = 1
    """How often each Web activity is carried out, as if answers had been lost."""

    def run(self, pipeline: dict[str, Any]) -> None:
        properties = pipeline["properties"]
        assert self.parameters.keys() == properties["parameters"].keys()
        self.variables = {name: given["defaultValue"] for name, given in properties["variables"].items()}
        self._all(properties["activities"])

    def _all(self, activities: Sequence[dict[str, Any]], before: Sequence[str] = ()) -> None:
        """Activities in the order of what they depend on."""
        done: list[str] = []
        for activity in activities:
            assert all(given["activity"] in done for given in activity.get("dependsOn", [])), activity["name"]
            getattr(self, f"_{activity['type']}")(activity["name"], activity["typeProperties"], [*before, *done])
            done.append(activity["name"])

    def _WebActivity(self, name: str, given: dict[str, Any], seen: Sequence[str]) -> None:  # noqa: N802 -- its name there
        url = self._said(given["url"], seen)
        if "authentication" in given:
            assert (given["authentication"]["type"], url) == ("MSI", self.parameters["token_uri"])
            self.outputs[name] = {"value": self.token}
            return
        for _ in range(self.tries):
            answered = httpx.request(
                given["method"], url, headers=self._said(given["headers"], seen),
                json=self._said(given.get("body"), seen), verify=self.trusted, timeout=60,
            )  # fmt: skip
        if answered.is_error:
            raise PipelineFailedError(f"{name}: {answered.text}")
        self.outputs[name] = answered.json()

    def _Wait(self, _name: str, given: dict[str, Any], _seen: Sequence[str]) -> None:  # noqa: N802 -- its name there
        assert given["waitTimeInSeconds"] > 0
        time.sleep(0.2)

    def _SetVariable(self, _name: str, given: dict[str, Any], seen: Sequence[str]) -> None:  # noqa: N802 -- its name there
        assert given["variableName"] in self.variables
        self.variables[given["variableName"]] = self._said(given["value"], seen)

    def _Until(self, _name: str, given: dict[str, Any], seen: Sequence[str]) -> None:  # noqa: N802 -- its name there
        while True:
            self._all(given["activities"], seen)
            if self._said(given["expression"]["value"], seen):
                return

    def _IfCondition(self, _name: str, given: dict[str, Any], seen: Sequence[str]) -> None:  # noqa: N802 -- its name there
        if not self._said(given["expression"]["value"], seen):
            self._all(given["ifFalseActivities"], seen)

    def _Fail(self, _name: str, given: dict[str, Any], seen: Sequence[str]) -> None:  # noqa: N802 -- its name there
        raise PipelineFailedError(self._said(given["message"], seen))

    def _said(self, value: Any, seen: Sequence[str]) -> Any:
        if isinstance(value, dict):
            return {key: self._said(item, seen) for key, item in value.items()}
        if not isinstance(value, str) or not value.startswith("@"):
            return value

        def activity(name: str) -> _Output:
            assert name in seen, f"{name} is not among what was run before in sight: {seen}"
            return _Output({"output": self.outputs[name]})

        known = {
            "activity": activity,
            "concat": lambda *parts: "".join(parts),
            "equals": lambda one, other: one == other,
            "pipeline": lambda: _Output({"parameters": self.parameters, "RunId": "0f8fad5b-run"}),
            "variables": lambda name: self.variables[name],
        }
        return eval(value[1:], {"__builtins__": {}}, known)


@pytest.mark.timeout(280)
def test_the_pipeline_of_data_factory_starts_one_job_waits_for_it_and_fails_with_it(
    shipped: Shipped, tmp_path: Path
) -> None:
    run_page(PAGES / "call-from-data-factory.md", shipped, tmp_path, at_least=6)
    pipeline = json.loads(fence_of("call-from-data-factory.md", "json"))
    token = (tmp_path / "batchpoint" / "token").read_text().strip()
    place = shipped.home / "datastores" / "workspaceblobstore" / "in"
    for name, content in {"good/a.txt": b"1\n2\n", "good/b.txt": b"3\n", "bad/c.txt": b"\xff\n"}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    set_up = shipped.json("azureml-env")
    address = set_up["variables"]["AZUREML_DEV_URL_MFE"]
    path = shipped.json("batch-endpoint", "show", "-n", "lines", "--query", "scoring_uri").partition("/subscriptions/")
    parameters = {
        "scoring_uri": f"{address}/subscriptions/{path[2]}",
        "token_uri": "https://vault.vault.azure.net/secrets/batchpoint?api-version=7.4",
    }
    trusted = ssl.create_default_context(cafile=set_up["variables"]["REQUESTS_CA_BUNDLE"])

    def score(folder: str, **more: Any) -> str:
        where = {"input": f"azureml://datastores/workspaceblobstore/paths/in/{folder}"}
        factory = Factory({**parameters, **where}, token, trusted, **more)
        factory.run(pipeline)
        return str(factory.outputs["Invoke"]["name"])

    job = score("good", tries=2)
    assert [each["name"] for each in shipped.json("job", "list")] == [job]
    assert (shipped.output(job) / "predictions.csv").read_text() == "file,prediction\na.txt,2\nb.txt,1\n"
    with pytest.raises(PipelineFailedError, match=r"Invoke: .*another request"):
        score("bad")  # the same run of the factory cannot ask for something else
    pipeline["properties"]["activities"][1]["typeProperties"]["headers"]["repeatability_request-id"] = "another-run"
    with pytest.raises(PipelineFailedError, match=r"Job .* ended as Failed"):
        score("bad")


AIRFLOW = '''
"""As much of Airflow as the DAG of the page needs: tasks are run in the order in which they are called."""
import sys, time, types

class Failed(Exception):
    pass

class Result(str):
    def __rshift__(self, following):
        return following

def run(function, arguments):
    wanted = function.__code__.co_varnames[: function.__code__.co_argcount]
    context = {key: value for key, value in {"ds": sys.argv[2], "run_id": sys.argv[3]}.items() if key in wanted}
    return function(*arguments, **context)

def task(function=None, *, retries=0):
    if function is None:
        return lambda given: task(given, retries=retries)
    def called(*arguments):
        for _ in range(retries + 1):  # as if the answer of each try but the last had been lost
            found = run(function, arguments)
        return Result(found)
    return called

def sensor(*, poke_interval, timeout, mode):
    assert 0 < poke_interval < timeout and mode == "reschedule"
    def of(function):
        def called(*arguments):
            while not run(function, arguments):
                time.sleep(0.2)
            return Result("")
        return called
    return of

task.sensor = sensor
airflow = types.ModuleType("airflow")
airflow.sdk = types.SimpleNamespace(dag=lambda **given: lambda function: function, task=task)
airflow.exceptions = types.SimpleNamespace(AirflowFailException=Failed)
sys.modules |= {"airflow": airflow, "airflow.sdk": airflow.sdk, "airflow.exceptions": airflow.exceptions}
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), {})
'''


@pytest.mark.timeout(280)
def test_the_dag_of_airflow_starts_one_job_waits_for_it_and_fails_with_it(shipped: Shipped, tmp_path: Path) -> None:
    run_page(PAGES / "call-from-airflow.md", shipped, tmp_path, at_least=5)
    work = tmp_path / "batchpoint"
    (work / "dag.py").write_text(fence_of("call-from-airflow.md", "python"))
    (work / "airflow_stub.py").write_text(AIRFLOW)
    token = (work / "token").read_text().strip()
    variables = {**shipped.environment(), "BATCHPOINT_URL": shipped.server()["url"], "BATCHPOINT_TOKEN": token}
    place = shipped.home / "datastores" / "workspaceblobstore" / "in"
    for name, content in {"2026-01-01/a.txt": b"1\n2\n", "2026-01-02/b.txt": b"\xff\n"}.items():
        (place / name).parent.mkdir(parents=True)
        (place / name).write_bytes(content)

    def run(day: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "airflow_stub.py", "dag.py", day, f"scheduled__{day}"]
        return subprocess.run(
            command, cwd=work, env=variables, capture_output=True, text=True, timeout=120, check=False
        )

    done = run("2026-01-01")
    assert done.returncode == 0, done.stderr
    (job,) = shipped.json("job", "list")
    assert (work / "scored" / job["name"] / "predictions.csv").read_text() == "file,prediction\na.txt,2\n"
    failed = run("2026-01-02")
    assert failed.returncode == 1
    assert re.search(r"Failed: Job \S+ is failed: .*UnicodeDecodeError", failed.stderr, re.DOTALL), failed.stderr
    assert len(shipped.json("job", "list")) == 2
