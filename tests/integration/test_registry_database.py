"""Opening a registry: empty, older, newer, locked, broken, by several at once."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, DateTime, MetaData, text

from batchpoint.entities.endpoints import BatchEndpoint
from batchpoint.entities.job_queries import JobQuery
from batchpoint.entities.jobs import Job
from batchpoint.entities.workspaces import NamedWorkspace
from batchpoint.errors import RegistryError
from batchpoint.registry import Registry, migrations
from batchpoint.registry.database import Database, schema_version
from batchpoint.registry.secrets import SecretBox
from batchpoint.registry.tables import metadata


@pytest.fixture(autouse=True)
def migrations_of_their_own(migrated_by_alembic: Callable[[Connection], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Alembic migrates each database of these stories."""
    monkeypatch.setattr(migrations, "upgrade", migrated_by_alembic)


def test_the_migrations_make_exactly_the_tables_that_the_program_uses(registry: Registry) -> None:
    with registry.database.engine.connect() as connection:
        assert schema_version(connection) == migrations.HEAD
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_every_version_of_the_schema_is_known_and_the_last_is_head() -> None:
    config = Config()
    config.set_main_option("script_location", "batchpoint.registry:migrations")
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == migrations.HEAD
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == migrations.KNOWN


_AT = "2026-01-01 00:00:00+00:00"
_BEFORE_WORKSPACES = {
    "assets": {
        "id": 7, "kind": "model", "name": "risk", "version": "1", "archived": False, "content_hash": "abc",
        "body": {"name": "risk", "version": "1", "path": "/models/risk", "type": "custom_model"},
    },
    "resources": {"kind": "compute", "name": "cpu-one", "body": {"name": "cpu-one", "max_instances": 3}},
    "endpoints": {"name": "churn", "body": {"name": "churn"}},
    "deployments": {
        "endpoint_name": "churn", "name": "blue", "compute": "cpu-one", "model": "azureml:risk:1",
        "body": {"name": "blue", "endpoint_name": "churn", "model": "azureml:risk:1", "compute": "azureml:cpu-one"},
    },
    "scored_models": {
        "endpoint_name": "churn", "deployment_name": "blue", "key": '{"store": "3"}', "rows": 12, "failed": 0,
        "seconds": 1.5, "last_seen_at": _AT, "last_job_name": "nightly",
    },
    "jobs": {
        "id": 41, "name": "nightly", "status": "queued", "cancel_requested": False, "archived": False,
        "endpoint_name": "churn", "deployment_name": "blue", "compute": "cpu-one", "idempotency_key": "once",
        "queued_at": _AT, "body": {"name": "nightly", "display_name": "The NIGHT of ÖREBRO"},
    },
    "job_events": {"job_name": "nightly", "at": _AT, "event": "queued", "details": {}},
    "schedules": {
        "name": "daily", "enabled": True, "next_fire_at": _AT,
        "body": {
            "name": "daily", "trigger": {"type": "cron", "expression": "0 0 * * *"},
            "create_job": {"type": "invoke", "endpoint_name": "churn", "inputs": {}},
        },
    },
    "schedule_runs": {
        "id": 5, "schedule_name": "daily", "cause": "tick", "fire_at": _AT, "outcome": "started",
        "job_name": "nightly", "details": {"window_start": "2025-12-31T00:00:00+00:00"},
    },
    "schedule_files": {
        "schedule_name": "daily", "path": "a.csv", "fingerprint": "1-1", "seen_at": _AT, "run_id": 5,
    },
}  # fmt: skip
"""A row of each table, as it was when a server had one workspace."""


def test_a_registry_of_an_older_program_keeps_what_it_holds_as_that_of_the_default_workspace(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    fill_as_before_workspaces(monkeypatch, database_url)
    registry = Registry.open(database_url, tmp_path / "secret.key")
    with registry.database.engine.connect() as connection:
        assert schema_version(connection) == migrations.HEAD
    (run,) = registry.schedules.runs("daily")
    kept = {
        "assets": registry.assets.get("model", "risk").version,
        "computes": [each.name for each in registry.resources.list("compute")],
        "endpoints": [each.name for each in registry.endpoints.list()],
        "deployments": [each.name for each in registry.deployments.list(compute="cpu-one")],
        "boards": [each.rows for each in registry.scored_models.list("churn", "blue")],
        "jobs": [each.name for each in registry.jobs.list(compute="cpu-one")],
        "words": [each.name for each in registry.jobs.find(JobQuery(words=["the", "nightly", "churn", "Örebro"])).jobs],
        "keys": getattr(registry.jobs.made_for("once"), "name", None),
        "events": [each.event for each in registry.jobs.events("nightly")],
        "schedules": [each.name for each in registry.schedules.list()],
        "runs": (run.job_name, [file.path for file in registry.schedules.files_of(run)]),
    }
    assert kept == {
        "assets": "1",
        "computes": ["cpu-one"],
        "endpoints": ["churn"],
        "deployments": ["blue"],
        "boards": [12],
        "jobs": ["nightly"],
        "words": ["nightly"],
        "keys": "nightly",
        "events": ["queued"],
        "schedules": ["daily"],
        "runs": ("nightly", ["a.csv"]),
    }
    registry.workspaces.put(NamedWorkspace(name="other"), by=None)
    other = registry.within("other")
    assert other.jobs.enqueue(Job(name="nightly"), idempotency_key="once")[1]
    assert other.endpoints.put(BatchEndpoint(name="churn"), by=None).name == "churn"
    claimed = [registry.jobs.claim("me", 30), registry.jobs.claim("me", 30)]
    assert {each.workspace for each in claimed if each is not None} == {"default", "other"}
    registry.endpoints.delete("churn")  # its deployments, and their boards, go with it
    assert (registry.deployments.list(), registry.scored_models.list("churn", "blue")) == ([], [])
    assert [each.name for each in other.endpoints.list()] == ["churn"]
    registry.close()


def fill_as_before_workspaces(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    """A database of the schema before workspaces, with something in each table."""
    with monkeypatch.context() as older:
        older.setattr(migrations, "HEAD", "0003")
        database = Database(database_url)
        database.migrate()
    tables = MetaData()
    tables.reflect(database.engine)
    with database.write() as connection:
        for name, row in _BEFORE_WORKSPACES.items():
            columns = tables.tables[name].c
            values = {key: _as_stored(columns[key], value) for key, value in row.items()}
            connection.execute(tables.tables[name].insert().values(values))
    database.close()


def _as_stored(column: Column[Any], value: object) -> object:
    is_time = isinstance(column.type, DateTime)
    return datetime.fromisoformat(str(value)) if is_time else value


def test_a_registry_that_a_newer_program_made_is_left_alone(
    registry: Registry, database_url: str, tmp_path: Path
) -> None:
    with registry.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RegistryError, match=r"9999.*newer batchpoint.*Upgrade"):
        Registry.open(database_url, tmp_path / "secret.key")


def test_several_that_open_an_empty_registry_at_once_all_can_use_it(database_url: str, tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def use(number: int) -> None:
        try:
            registry = Registry.open(database_url, tmp_path / "secret.key")
            registry.jobs.enqueue(Job(name=f"job-{number}"))
            registry.close()
        except BaseException as error:  # noqa: BLE001 - a thread's error is told by the test
            failed.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_locked_registry_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    registry = Registry.open(f"sqlite:///{path}", tmp_path / "secret.key", busy_seconds=0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RegistryError, match=r"stayed locked for 0\.1 s"):
        registry.jobs.enqueue(Job(name="one"))
    assert registry.jobs.list() == []  # reading goes on
    other.execute("ROLLBACK")
    registry.jobs.enqueue(Job(name="one"))
    other.close()
    registry.close()


def test_what_is_no_registry_is_refused_in_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is not a database at all" * 100)
    with pytest.raises(RegistryError, match="not a usable registry"):
        Registry.open(f"sqlite:///{broken}", tmp_path / "secret.key")
    with pytest.raises(RegistryError, match="needs SQLite or PostgreSQL"):
        Registry.open("mysql://host/name", tmp_path / "secret.key")
    with pytest.raises(RegistryError, match="needs a file"):
        Registry.open("sqlite://", tmp_path / "secret.key")


def test_the_key_of_credentials_is_private_and_another_key_opens_nothing(tmp_path: Path) -> None:
    key_file = tmp_path / "secret.key"
    encrypted = SecretBox(key_file).encrypt({"account_key": "top secret"})
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert b"top secret" not in encrypted
    assert SecretBox(key_file).decrypt(encrypted) == {"account_key": "top secret"}
    with pytest.raises(RegistryError, match="another one"):
        SecretBox(tmp_path / "other.key").decrypt(encrypted)
    key_file.write_text("nonsense")
    with pytest.raises(RegistryError, match="does not hold a key"):
        SecretBox(key_file)


def test_who_only_reads_is_let_in_while_nothing_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    registry = Registry.open(f"sqlite:///{path}", tmp_path / "key", busy_seconds=0.05)
    secret, _ = registry.tokens.create("ci", "reader")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = registry.tokens.find(secret)
    assert found is not None
    assert found.last_used_at is None
    registry.close()
