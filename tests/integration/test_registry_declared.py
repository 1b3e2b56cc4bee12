"""Assets, resources, endpoints, tokens and audit as the registry keeps them; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from batchpoint.entities.assets import Data
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.resources import Compute, Datastore, DatastoreCredentials
from batchpoint.errors import AlreadyExistsError, ConflictError, NotFoundError
from batchpoint.registry import Registry


def test_versions_count_up_from_the_highest_whole_number(registry: Registry) -> None:
    for version in (None, "7", "beta", None):
        registry.assets.register("data", Data(name="d", path="/p", version=version), f"hash-{version}", by="me")
    assert [asset.version for asset in registry.assets.list("data")] == ["8", "beta", "7", "1"]
    assert registry.assets.get("data", "d").created_by == "me"


def test_latest_is_the_most_recently_created_that_is_not_archived(registry: Registry) -> None:
    for version in ("9", "2"):
        registry.assets.register("data", Data(name="d", path="/p", version=version), version, by=None)
    assert registry.assets.get("data", "d", label="latest").version == "2"
    registry.assets.set_archived("data", "d", "2", archived=True)
    assert registry.assets.get("data", "d").version == "9"
    assert registry.assets.get("data", "d", "2").archived
    assert [asset.version for asset in registry.assets.list("data", archived="only")] == ["2"]
    registry.assets.set_archived("data", "d", None, archived=True)
    with pytest.raises(NotFoundError, match="archived"):
        registry.assets.get("data", "d")
    registry.assets.set_archived("data", "d", None, archived=False)
    assert len(registry.assets.list("data", name="d")) == 2


def test_a_name_tells_its_latest_and_its_next_version_and_is_archived_when_all_its_versions_are(
    registry: Registry,
) -> None:
    for name, version in (("a", "3"), ("a", "beta"), ("b", "1"), ("c", "1")):
        registry.assets.register("data", Data(name=name, path="/p", version=version), version, by=None)
    registry.assets.set_archived("data", "a", "beta", archived=True)
    registry.assets.set_archived("data", "b", None, archived=True)
    shown = [(each.latest.reference, each.next_version) for each in registry.assets.by_name("data")]
    assert shown == [("c:1", "2"), ("a:3", "4")]
    assert [each.latest.reference for each in registry.assets.by_name("data", archived="only")] == ["b:1"]
    assert [each.latest.name for each in registry.assets.by_name("data", archived="include", offset=1)] == ["b", "a"]
    assert [each.latest.name for each in registry.assets.by_name("data", archived="include", limit=1)] == ["c"]
    assert registry.assets.by_name("data", name="nothing", archived="include") == []
    assert registry.assets.by_name("model") == []


def test_a_version_never_changes_its_content(registry: Registry) -> None:
    asset, created = registry.assets.register("data", Data(name="d", path="/p", version="1"), "h", by=None)
    assert created
    again = Data(name="d", path="/p", version="1", description="words", tags={"a": "b"})
    changed, created = registry.assets.register("data", again, "h", by=None)
    assert not created
    assert (changed.description, changed.tags, changed.created_at) == ("words", {"a": "b"}, asset.created_at)
    with pytest.raises(AlreadyExistsError, match="other content"):
        registry.assets.register("data", Data(name="d", path="/q", version="1"), "other", by=None)
    with pytest.raises(NotFoundError, match="newest versions are 1"):
        registry.assets.get("data", "d", "5")


def test_versions_registered_at_once_all_get_their_own_number(registry: Registry) -> None:
    def register() -> None:
        registry.assets.register("data", Data(name="d", path="/p"), "h", by=None)

    threads = [threading.Thread(target=register) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(asset.version or "" for asset in registry.assets.list("data")) == list("123456")


def test_credentials_are_kept_apart_encrypted_and_survive_an_update_without_any(registry: Registry) -> None:
    credentials = DatastoreCredentials(account_key=SecretStr("top-secret"), tenant_id="t")
    store = Datastore(name="blobs", type="azure_blob", account_name="a", container_name="c", credentials=credentials)
    stored = registry.resources.put("datastore", store, by="me")
    assert isinstance(stored, Datastore)
    assert (stored.credentials, stored.has_credentials) == (None, True)
    assert registry.resources.get("datastore", "blobs") == stored
    assert registry.resources.credentials("blobs") == credentials
    with registry.database.read() as connection:
        row = connection.execute(text("SELECT * FROM resources")).one()
    assert "top-secret" not in str(row)
    registry.resources.put("datastore", store.model_copy(update={"credentials": None, "path": "p"}), by="me")
    assert registry.resources.credentials("blobs") == credentials
    registry.resources.put("datastore", store.model_copy(update={"credentials": DatastoreCredentials()}), by="me")
    assert registry.resources.credentials("blobs") is None
    registry.resources.delete("datastore", "blobs")
    with pytest.raises(NotFoundError, match="blobs"):
        registry.resources.get("datastore", "blobs")


def test_resources_are_listed_by_name_and_keep_when_they_were_made(registry: Registry) -> None:
    first = registry.resources.put("compute", Compute(name="zeta"), by="me")
    registry.resources.put("compute", Compute(name="alpha"), by="me")
    again = registry.resources.put("compute", Compute(name="zeta", max_instances=9), by="you")
    assert [entity.name for entity in registry.resources.list("compute")] == ["alpha", "zeta"]
    assert (again.created_at, again.created_by) == (first.created_at, "me")
    assert again.modified_at is not None


def test_deleting_an_endpoint_deletes_its_deployments(registry: Registry) -> None:
    registry.endpoints.put(BatchEndpoint(name="churn"), by="me")
    registry.deployments.put(BatchDeployment(name="blue", endpoint_name="churn", compute="azureml:cpu"), by="me")
    assert registry.deployments.list(compute="cpu")[0].name == "blue"
    assert registry.deployments.count("churn") == 1
    registry.endpoints.delete("churn")
    assert registry.deployments.list() == []
    with pytest.raises(NotFoundError):
        registry.deployments.get("churn", "blue")


def test_things_of_one_name_stored_at_once_are_stored_once(registry: Registry) -> None:
    failed: list[BaseException] = []

    def store() -> None:
        try:
            registry.resources.put("compute", Compute(name="cpu"), by=None)
            registry.endpoints.put(BatchEndpoint(name="churn"), by=None)
            registry.deployments.put(BatchDeployment(name="blue", endpoint_name="churn"), by=None)
        except BaseException as error:  # noqa: BLE001 - a thread's error is told by the test
            failed.append(error)

    threads = [threading.Thread(target=store) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(registry.resources.list("compute")) == registry.deployments.count("churn") == 1


def test_a_deployment_of_an_endpoint_that_is_gone_is_refused(registry: Registry) -> None:
    with pytest.raises(ConflictError, match="deleted"):
        registry.deployments.put(BatchDeployment(name="blue", endpoint_name="churn"), by=None)


def test_of_a_token_only_a_hash_is_kept(registry: Registry) -> None:
    secret, token = registry.tokens.create("ci", "operator", expires_at=None, by="admin")
    with registry.database.read() as connection:
        assert secret not in str(connection.execute(text("SELECT * FROM tokens")).all())
    found = registry.tokens.find(secret)
    assert found is not None
    assert found.name == "ci"
    assert registry.tokens.get("ci").last_used_at is not None
    assert registry.tokens.find(secret + "x") is None
    assert registry.tokens.revoke("ci").revoked_at is not None
    assert [each.name for each in registry.tokens.list()] == ["ci"]
    assert secret.startswith(token.prefix)
    with pytest.raises(AlreadyExistsError, match="ci"):
        registry.tokens.create("ci", "reader")
    with pytest.raises(NotFoundError):
        registry.tokens.revoke("nobody")


def test_the_audit_log_answers_who_did_what_newest_first(registry: Registry) -> None:
    registry.audit.record("me", "endpoints.invoke", "churn", details={"job": "one"})
    registry.audit.record("you", "endpoints.delete", "churn", ok=False)
    assert [(each.who, each.ok) for each in registry.audit.list()] == [("you", False), ("me", True)]
    assert registry.audit.list(who="me")[0].details == {"job": "one"}
    gap = registry.audit.list()[0].at - registry.audit.list()[1].at
    assert gap >= timedelta(0)
