"""Opening a registry: empty, older, newer, locked, broken, by several at once."""

from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from batchpoint.entities.jobs import Job
from batchpoint.entities.resources import Compute
from batchpoint.errors import RegistryError
from batchpoint.registry import Registry, migrations
from batchpoint.registry.database import schema_version
from batchpoint.registry.secrets import SecretBox
from batchpoint.registry.tables import metadata


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


def test_a_registry_of_an_older_program_keeps_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    with monkeypatch.context() as older:
        older.setattr(migrations, "HEAD", "0002")
        before = Registry.open(database_url, tmp_path / "secret.key")
        before.resources.put("compute", Compute(name="cpu-one", max_instances=3), by=None)
        before.close()
    registry = Registry.open(database_url, tmp_path / "secret.key")
    kept = registry.resources.get("compute", "cpu-one")
    with registry.database.engine.connect() as connection:
        assert schema_version(connection) == migrations.HEAD
    registry.close()
    assert isinstance(kept, Compute)
    assert kept.max_instances == 3


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
