"""What is changed through two servers at once, on both databases: neither change undoes the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchpoint.background.service import Background
from batchpoint.entities.assets import Data
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, CodeConfiguration
from batchpoint.entities.pipeline_deployments import PublishRequest
from batchpoint.entities.resources import Compute
from batchpoint.entities.schedules import Schedule
from batchpoint.errors import ChangedMeanwhileError, NotFoundError
from batchpoint.registry.changes import TRIES
from batchpoint.server.context import Context
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.conftest import Clock
from integration.served import served

CHANGES = 6


@pytest.fixture
def workspaces(database_url: str, tmp_path: Path, clock: Clock) -> Iterator[tuple[Workspace, Workspace]]:
    """Those of two servers on one database, with a thing of each kind."""
    settings = Settings(home=tmp_path / "home", database_url=database_url)
    with Workspace.open(settings, now=clock) as one, Workspace.open(settings, now=clock) as other:
        code = tmp_path / "code"
        code.mkdir()
        (code / "score.py").write_text("def run(mini_batch):\n    return list(mini_batch)\n")
        one.resources.create_or_update("compute", Compute(name="cpu"))
        one.endpoints.create_or_update(BatchEndpoint(name="churn"))
        for name in ("blue", "green"):
            deployment = BatchDeployment(
                name=name,
                endpoint_name="churn",
                code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
            )
            one.endpoints.create_or_update_deployment(deployment, set_default=name == "blue")
        data = tmp_path / "data.csv"
        data.write_text("a\n1\n")
        declared = {
            "name": "nightly",
            "trigger": {"type": "cron", "expression": "0 2 * * *"},
            "create_job": {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": str(data)}}},
        }
        one.schedules.create_or_update(Schedule.model_validate(declared))
        yield one, other


@pytest.fixture
def servers(workspaces: tuple[Workspace, Workspace]) -> Iterator[list[httpx.Client]]:
    with ExitStack() as stack:
        secret, _ = workspaces[0].tokens.create("ci", "admin")
        contexts = [
            Context(workspace, Background(workspace), server_id=name, shares_files=True)
            for workspace, name in zip(workspaces, ("one", "other"), strict=True)
        ]
        clients = [stack.enter_context(served(context, secret)) for context in contexts]
        for client in clients:
            client.get("/api/v1/nowhere")  # routes are built by the first request, which two threads cannot do at once
        yield clients


@pytest.mark.parametrize(
    "address", ["computes/cpu", "endpoints/churn", "endpoints/churn/deployments/blue", "schedules/nightly"]
)
def test_patches_through_two_servers_at_once_all_survive(servers: list[httpx.Client], address: str) -> None:
    def patch(server: httpx.Client, name: str) -> None:
        for number in range(CHANGES):
            answered = server.patch(f"/api/v1/{address}", json={"tags": {f"{name}{number}": "kept"}})
            assert answered.status_code == 200, answered.text

    # Two clients of each server: those of one server must not undo each other's either.
    clients = [(server, f"{place}-{client}-") for place, server in enumerate(servers) for client in range(2)]
    at_the_same_time(*(lambda given=given: patch(*given) for given in clients))
    found = servers[0].get(f"/api/v1/{address}").json()["tags"]
    assert sorted(found) == sorted(f"{name}{number}" for _, name in clients for number in range(CHANGES))


def test_a_change_is_made_again_on_top_of_one_that_came_between(workspaces: tuple[Workspace, Workspace]) -> None:
    one, other = workspaces

    def tagged(name: str) -> Callable[[Any], Any]:
        return lambda before: before.model_copy(update={"tags": {**before.tags, name: "kept"}})

    def tagged_late(name: str, meanwhile: Callable[[], Any]) -> Callable[[Any], Any]:
        """The same by somebody who is overtaken, once, after he has read."""
        pending = [meanwhile]

        def change(before: Any) -> Any:
            if pending:
                pending.pop()()
            return tagged(name)(before)

        return change

    compute = one.resources.update(
        "compute", "cpu", tagged_late("late", lambda: other.resources.update("compute", "cpu", tagged("early")))
    )
    endpoint = one.endpoints.update(
        "churn", tagged_late("late", lambda: other.endpoints.update("churn", tagged("early")))
    )
    deployment = one.endpoints.update_deployment(
        "churn",
        "blue",
        tagged_late("late", lambda: other.endpoints.update_deployment("churn", "blue", tagged("early"))),
    )
    declared = one.schedules.update(
        "nightly", tagged_late("late", lambda: other.schedules.update("nightly", tagged("early")))
    )
    for changed in (compute, endpoint, deployment, declared):
        assert changed.tags == {"early": "kept", "late": "kept"}
    assert one.endpoints.get("churn") == endpoint
    assert one.schedules.get("nightly") == declared


def test_a_schedule_that_is_disabled_while_it_is_updated_stays_disabled(
    workspaces: tuple[Workspace, Workspace],
) -> None:
    one, other = workspaces
    seen: list[bool] = []

    def change(before: Schedule) -> Schedule:
        seen.append(before.is_enabled)
        other.schedules.disable("nightly")
        return before.model_copy(update={"description": "at night"})

    changed = one.schedules.update("nightly", change)
    assert seen == [True, False]
    assert (changed.description, changed.is_enabled, changed.next_run_at) == ("at night", False, None)
    assert one.schedules.get("nightly") == changed


def test_a_schedule_that_is_replaced_while_it_is_disabled_stays_disabled(
    workspaces: tuple[Workspace, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = workspaces
    declared = one.schedules.get("nightly").model_copy(update={"description": "at night"})
    declared.model_fields_set.discard("is_enabled")
    overtaken(monkeypatch, one.endpoints, "deployment_for", lambda: other.schedules.disable("nightly"))
    one.schedules.create_or_update(declared)
    stored = one.schedules.get("nightly")
    assert (stored.description, stored.is_enabled) == ("at night", False)


def test_an_enabled_schedule_fires_by_the_trigger_that_came_between(
    workspaces: tuple[Workspace, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = workspaces
    one.schedules.disable("nightly")
    at_noon = {"type": "cron", "expression": "0 12 * * *"}

    def change(before: Schedule) -> Schedule:
        return Schedule.model_validate({**before.body(), "trigger": at_noon})

    overtaken(monkeypatch, one.registry.schedules, "set_enabled", lambda: other.schedules.update("nightly", change))
    enabled = one.schedules.enable("nightly")
    assert enabled.next_run_at is not None
    assert enabled.next_run_at.hour == 12


def test_an_update_leaves_the_next_time_to_the_scheduler_that_moved_on_meanwhile(
    workspaces: tuple[Workspace, Workspace], clock: Clock
) -> None:
    one, other = workspaces
    first = one.schedules.get("nightly").next_run_at
    assert first is not None

    def change(before: Schedule) -> Schedule:
        clock.time = first
        other.registry.schedules.claim_due()
        return before.model_copy(update={"description": "at night"})

    changed = one.schedules.update("nightly", change)
    assert changed.next_run_at == one.schedules.get("nightly").next_run_at == first + timedelta(days=1)


def test_a_new_default_leaves_what_was_changed_while_its_deployment_was_checked(
    workspaces: tuple[Workspace, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = workspaces
    green = one.endpoints.get_deployment("churn", "green")
    described = BatchEndpoint(name="churn", description="who leaves")
    overtaken(monkeypatch, one.registry.deployments, "count", lambda: other.endpoints.create_or_update(described))
    one.registry.deployments.delete("churn", "green")
    one.endpoints.create_or_update_deployment(green, set_default=True)
    endpoint = one.endpoints.get("churn")
    assert (endpoint.description, endpoint.defaults.deployment_name) == ("who leaves", "green")


def test_a_published_pipeline_that_is_published_anew_while_it_is_disabled_runs_what_is_new(
    workspaces: tuple[Workspace, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = workspaces

    def publish(workspace: Workspace, version: str) -> None:
        pipeline: Mapping[str, Any] = {"type": "pipeline", "jobs": {"a": {"type": "command", "command": "true"}}}
        asked = {"name": "nightly", "version": version, "pipeline": pipeline}
        workspace.published_pipelines.publish(PublishRequest.model_validate(asked))

    publish(one, "1")
    overtaken(monkeypatch, one.registry.resources, "put", lambda: publish(other, "2"))
    one.published_pipelines.set_active("nightly", active=False)
    stored = one.published_pipelines.get("nightly")
    assert (stored.version, stored.status) == ("2", "Disabled")


def test_an_asset_registered_again_and_tagged_at_once_keeps_both(workspaces: tuple[Workspace, Workspace]) -> None:
    one, other = workspaces
    registries = (one.registry.assets, other.registry.assets)
    registries[0].register("data", Data(name="d", path="/p", version="1"), "hash", by=None)

    def describe() -> None:
        for number in range(CHANGES):
            again = Data(name="d", path="/p", version="1", description=str(number))
            registries[0].register("data", again, "hash", by=None)

    def tag() -> None:
        for number in range(CHANGES):
            registries[1].update("data", "d", "1", tags={str(number): "kept"})

    at_the_same_time(describe, tag)
    found = one.assets.get("data", "d")
    assert (found.description, len(found.tags)) == (str(CHANGES - 1), CHANGES)


def test_a_change_of_what_was_deleted_meanwhile_says_so(workspaces: tuple[Workspace, Workspace]) -> None:
    one, other = workspaces

    def change(before: Any) -> Any:
        other.resources.delete("compute", "cpu")
        return before

    with pytest.raises(NotFoundError, match="cpu"):
        one.resources.update("compute", "cpu", change)


def test_whoever_is_overtaken_every_time_is_told_to_try_again(workspaces: tuple[Workspace, Workspace]) -> None:
    one, other = workspaces
    tried: list[int] = []

    def change(before: Any) -> Any:
        tried.append(len(tried))
        other.resources.update("compute", "cpu", lambda now: now.model_copy(update={"description": str(len(tried))}))
        return before

    with pytest.raises(ChangedMeanwhileError, match="Try again"):
        one.resources.update("compute", "cpu", change)
    assert len(tried) == TRIES


def test_null_takes_a_key_of_an_endpoint_away(servers: list[httpx.Client]) -> None:
    address = "/api/v1/endpoints/churn"
    assert servers[0].patch(address, json={"description": "who leaves"}).json()["description"] == "who leaves"
    assert "description" not in servers[1].patch(address, json={"description": None}).json()


def overtaken(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, meanwhile: Callable[[], object]) -> None:
    """Let something be done elsewhere when a method is called for the first time, just before it does its work."""
    method = getattr(owner, name)

    def late(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        meanwhile()
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, late)


def at_the_same_time(*works: Callable[[], None]) -> None:
    together = threading.Barrier(len(works))
    failures: list[BaseException] = []

    def begin(work: Callable[[], None]) -> None:
        try:
            together.wait()
            work()
        except BaseException as failure:  # noqa: BLE001 - a thread's error is told by the assertion below
            failures.append(failure)

    threads = [threading.Thread(target=begin, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
