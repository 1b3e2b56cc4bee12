"""Stores on this machine, in memory and on S3 keep the same promises."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

import azurite_server
from azurite_server import running_azurite
from batchpoint.entities.resources import Datastore, DatastoreCredentials
from batchpoint.errors import AlreadyExistsError, DatastoreError, InputError, InvalidEntityError
from batchpoint.storage import datastores
from batchpoint.storage.datastores import Stores, datastore_url, storage_options


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 -- slow to import, and only one test needs it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def blob_account() -> Iterator[str]:
    with running_azurite() as address:
        yield address


def blob_container(address: str) -> Datastore:
    """A new container of an emulated account."""
    credentials = DatastoreCredentials(account_key=SecretStr(azurite_server.KEY))
    container = f"c{uuid.uuid4().hex}"
    store = Datastore(name="blobs", type="azure_blob", account_name=azurite_server.ACCOUNT, container_name=container,
                      endpoint=address, credentials=credentials)  # fmt: skip
    import adlfs  # noqa: PLC0415 -- only this store needs it

    adlfs.AzureBlobFileSystem(**storage_options(store)).mkdir(container)
    return store


@pytest.fixture(params=["local", "memory", "s3", "azure_blob"])
def datastore(request: pytest.FixtureRequest, tmp_path: Path) -> Datastore:
    if request.param == "local":
        return Datastore(name="place", type="local", path=str(tmp_path / "store"))
    if request.param == "memory":
        return Datastore(name=f"m{uuid.uuid4().hex}", type="memory")
    if request.param == "azure_blob":
        return blob_container(request.getfixturevalue("blob_account"))
    endpoint = request.getfixturevalue("s3_endpoint")
    secret = SecretStr("testing")
    credentials = DatastoreCredentials(access_key_id="testing", secret_access_key=secret)
    bucket = f"b{uuid.uuid4().hex}"
    store = Datastore(name="bucket", type="s3", bucket=bucket, endpoint=endpoint, credentials=credentials)
    import s3fs  # noqa: PLC0415 -- only this store needs it

    s3fs.S3FileSystem(**storage_options(store)).mkdir(bucket)
    return store


@pytest.fixture
def stores(datastore: Datastore) -> Stores:
    return Stores({datastore.name: storage_options(datastore)})


def test_what_is_put_is_listed_fetched_and_removed(datastore: Datastore, stores: Stores, tmp_path: Path) -> None:
    name = datastore.name
    source = tmp_path / "source"
    source.write_bytes(b"rows")
    folder = datastore_url(datastore, "in")
    for path in ("b.csv", "a.csv", "sub/c.csv", "B.csv"):
        stores.put(source, f"{folder}/{path}", name)
    assert [item.path for item in stores.list(folder, name)] == ["B.csv", "a.csv", "b.csv"]
    assert [(item.path, item.size) for item in stores.list(folder, name, recursive=True)][-1] == ("sub/c.csv", 4)
    assert sorted(stores.some(folder, name, limit=100), key=lambda item: item.path) == [
        *stores.list(folder, name, recursive=True)
    ]
    assert len(stores.some(folder, name, limit=2)) == 2
    assert stores.is_folder(folder, name)
    assert stores.size(f"{folder}/a.csv", name) == 4
    fetched = stores.fetch(f"{folder}/a.csv", tmp_path / "got" / "a.csv", name)
    assert fetched.read_bytes() == b"rows"
    stores.write_bytes(f"{folder}/a.csv", b"new", name)
    with stores.open_read(f"{folder}/a.csv", name) as file:
        assert file.read() == b"new"
    stores.remove(f"{folder}/a.csv", name)
    stores.remove(f"{folder}/a.csv", name)
    assert not stores.exists(f"{folder}/a.csv", name)
    stores.remove(folder, name)
    assert not stores.exists(f"{folder}/sub/c.csv", name)


def test_a_file_is_put_once_where_it_is_to_be_a_new_one(datastore: Datastore, stores: Stores, tmp_path: Path) -> None:
    url = datastore_url(datastore, "new")
    for content in ("first", "second"):
        (tmp_path / content).write_text(content)
    stores.put(tmp_path / "first", url, datastore.name, exclusive=True)
    for act in (stores.put, stores.move):
        with pytest.raises(AlreadyExistsError, match="exists already"):
            act(tmp_path / "second", url, datastore.name, exclusive=True)
    with stores.open_read(url, datastore.name) as file:
        assert file.read() == b"first"
    stores.move(tmp_path / "second", url, datastore.name)
    with stores.open_read(url, datastore.name) as file:
        assert file.read() == b"second"


def test_a_new_file_is_made_once_on_a_file_system_without_links_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    for content in ("first", "second"):
        (tmp_path / content).write_text(content)
    Stores().move(tmp_path / "first", str(tmp_path / "new"), exclusive=True)
    with pytest.raises(AlreadyExistsError, match="exists already"):
        Stores().move(tmp_path / "second", str(tmp_path / "new"), exclusive=True)
    assert (tmp_path / "new").read_text() == "first"


def test_what_is_missing_is_named(datastore: Datastore, stores: Stores, tmp_path: Path) -> None:
    url = datastore_url(datastore, "no/such.csv")
    with pytest.raises(InputError, match=r"such\.csv does not exist"):
        stores.check_readable(url, datastore.name)
    with pytest.raises(InputError, match=r"such\.csv does not exist"):
        stores.fetch(url, tmp_path / "x", datastore.name)
    assert list(tmp_path.glob("*")) == []


def test_checking_that_a_place_can_be_written_leaves_nothing_behind(datastore: Datastore, stores: Stores) -> None:
    stores.check_writable(datastore_url(datastore, "out/predictions.csv"), datastore.name)
    assert not stores.exists(datastore_url(datastore, "out"), datastore.name)


def test_a_store_that_refuses_or_does_not_answer_is_told_apart_from_a_missing_file() -> None:
    secret = SecretStr("x")
    credentials = DatastoreCredentials(access_key_id="testing", secret_access_key=secret)
    store = Datastore(name="gone", type="s3", bucket="b", endpoint="http://127.0.0.1:1", credentials=credentials)
    options = storage_options(store) | {"config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1}}
    with pytest.raises(DatastoreError, match="'gone'"):
        Stores({"gone": options}).exists(datastore_url(store, "x.csv"), "gone")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DatastoreError, match="is not a folder this user may write to"):
        Stores().check_writable(str(tmp_path / "out"))


def test_http_is_for_input_only() -> None:
    with pytest.raises(DatastoreError, match="http is for input"):
        Stores().check_writable("https://example.org/out")


def test_a_missing_package_names_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(datastores.EXTRAS, "s3", ("no_such_package", "s3"))
    with pytest.raises(DatastoreError, match=r"pip install 'batchpoint\[s3\]'"):
        Stores().exists("s3://bucket/key")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "..", "a\\..\\..\\x"])
def test_no_path_leads_out_of_a_datastore(path: str) -> None:
    for store in (Datastore(name="l", path="/data"), Datastore(name="s", type="s3", bucket="b")):
        with pytest.raises(InvalidEntityError, match="leads out of datastore"):
            datastore_url(store, path)


def test_no_link_leads_out_of_a_local_datastore(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path)
    with pytest.raises(InvalidEntityError, match="through a link"):
        datastore_url(Datastore(name="l", path=str(tmp_path / "store")), "link/secret")


def test_each_type_has_its_address() -> None:
    blob = Datastore(name="a", type="azure_blob", account_name="acc", container_name="con", path="pre/")
    lake = Datastore(name="a", type="azure_data_lake_gen2", account_name="acc", filesystem="fs")
    web = Datastore(name="w", type="http", endpoint="https://example.org/data")
    gcs = Datastore(name="g", type="gcs", bucket="b")
    assert datastore_url(blob, "x/y.csv") == "abfs://con/pre/x/y.csv"
    assert datastore_url(lake, "x/") == "abfs://fs/x/"
    assert datastore_url(web, "x.csv") == "https://example.org/data/x.csv"
    assert datastore_url(gcs) == "gs://b"
    assert storage_options(blob) == {"account_name": "acc", "anon": False}
    assert storage_options(blob.model_copy(update={"endpoint": "core.windows.net"})) == storage_options(blob)
    china = storage_options(blob.model_copy(update={"endpoint": "core.chinacloudapi.cn"}))
    assert china["account_host"] == "acc.blob.core.chinacloudapi.cn"
    with pytest.raises(InvalidEntityError, match="not supported here"):
        storage_options(Datastore(name="h", type="hdfs"))


def test_a_fingerprint_changes_with_what_lies_there_and_with_nothing_else(datastore: Datastore, stores: Stores) -> None:
    name = datastore.name
    folder = datastore_url(datastore, "seen")
    stores.write_bytes(f"{folder}/a.csv", b"1", name)
    stores.write_bytes(f"{folder}/sub/b.csv", b"2", name)
    before, file_before = stores.fingerprint(folder, name), stores.fingerprint(f"{folder}/a.csv", name)
    assert before is not None
    assert (stores.fingerprint(folder, name), stores.fingerprint(f"{folder}/a.csv", name)) == (before, file_before)
    stores.write_bytes(f"{folder}/sub/b.csv", b"22", name)
    changed = stores.fingerprint(folder, name)
    assert changed != before
    assert stores.fingerprint(f"{folder}/a.csv", name) == file_before
    stores.write_bytes(f"{folder}/c.csv", b"", name)
    assert stores.fingerprint(folder, name) not in {before, changed}
    with pytest.raises((InputError, DatastoreError)):
        stores.fingerprint(datastore_url(datastore, "nothing.csv"), name)
