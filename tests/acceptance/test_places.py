"""A bucket for input, model and output; predictions in PostgreSQL; packages from the index: by the shipped command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import azurite_server
from postgres_server import running_postgres
from shipped import Shipped

SCRIPT = """
import os
from pathlib import Path

def init():
    global factor
    factor = int((Path(os.environ["AZUREML_MODEL_DIR"]) / "factor.txt").read_text())

def run(mini_batch):
    return (mini_batch["a"] * factor).tolist()
"""

DEPLOYMENT = """
name: blue
endpoint_name: doubles
model:
  path: {model}
code_configuration:
  code: code
  scoring_script: score.py
batchpoint:
  mini_batch_type: dataframe
  split: rows
settings:
  mini_batch_size: 2
"""

PACKAGE = "roman==4.2"
"""A small package of pure Python that nothing else here needs."""

CREDENTIALS = {"key": "testing", "secret": "testing"}


@pytest.fixture
def shipped(shared: Shipped) -> Shipped:
    return shared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the script, the model's file and two csv files of five rows in all."""
    work = tmp_path / "work"
    (work / "code").mkdir(parents=True)
    (work / "code" / "score.py").write_text(SCRIPT)
    (work / "factor.txt").write_text("2")
    (work / "in").mkdir()
    (work / "in" / "one.csv").write_text("a\n1\n2\n3\n")
    (work / "in" / "two.csv").write_text("a\n4\n5\n")
    (work / "endpoint.yml").write_text("name: doubles\n")
    return work


def deploy(shipped: Shipped, folder: Path, *, model: str = "factor.txt") -> None:
    (folder / "deployment.yml").write_text(DEPLOYMENT.format(model=model))
    shipped.ok("endpoint", "create", "-f", "endpoint.yml", cwd=folder)
    shipped.ok("deployment", "create", "-f", "deployment.yml", "--set-default", cwd=folder)


@pytest.fixture(params=["s3", "azure_blob"])
def bucket(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], Any]]:
    """A datastore's declaration, of a bucket or a container on a server of this machine, and a client of that."""
    opened = s3_bucket() if request.param == "s3" else blob_container()
    with opened as found:
        yield found


@contextmanager
def s3_bucket() -> Iterator[tuple[dict[str, Any], Any]]:
    import s3fs  # noqa: PLC0415 -- slow to import, and only these tests need it
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 -- the same

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = s3fs.S3FileSystem(**CREDENTIALS, endpoint_url=address, skip_instance_cache=True)
    client.mkdir("lake")
    credentials = {"access_key_id": "testing", "secret_access_key": "testing"}
    yield {"type": "s3", "bucket": "lake", "endpoint": address, "credentials": credentials}, client
    server.stop()


@contextmanager
def blob_container() -> Iterator[tuple[dict[str, Any], Any]]:
    import adlfs  # noqa: PLC0415 -- slow to import, and only these tests need it

    account, key = azurite_server.ACCOUNT, azurite_server.KEY
    with azurite_server.running_azurite() as address:
        named = f"BlobEndpoint={address};AccountName={account};AccountKey={key}"
        client = adlfs.AzureBlobFileSystem(connection_string=named, skip_instance_cache=True)
        client.mkdir("lake")
        place = {"account_name": account, "container_name": "lake", "endpoint": address}
        yield {"type": "azure_blob", **place, "credentials": {"account_key": key}}, client


def test_a_bucket_holds_model_input_and_output(
    shipped: Shipped, folder: Path, bucket: tuple[dict[str, Any], Any]
) -> None:
    store, client = bucket
    for name in ("one.csv", "two.csv"):
        client.pipe(f"lake/in/{name}", (folder / "in" / name).read_bytes())
    client.pipe("lake/models/factor.txt", b"2")
    (folder / "lake.yml").write_text(json.dumps({"name": "lake", **store}))
    shown = json.dumps(shipped.json("datastore", "create", "-f", "lake.yml", cwd=folder))
    assert not any(secret in shown for secret in store["credentials"].values())
    deploy(shipped, folder, model="azureml://datastores/lake/paths/models/factor.txt")
    shipped.ok("data", "create", "-n", "rows", "--path", "azureml://datastores/lake/paths/in/")
    invoke = ["endpoint", "invoke", "-n", "doubles", "--input", "azureml:rows@latest", "--job-name", "first"]
    shipped.ok(*invoke, "--output-path", "azureml://datastores/lake/paths/out/", "--stream")
    assert client.cat("lake/out/predictions.csv").decode().splitlines() == [
        "file,row,prediction", "one.csv,0,2", "one.csv,1,4", "one.csv,2,6", "two.csv,0,8", "two.csv,1,10",
    ]  # fmt: skip
    receipt = json.loads(client.cat("lake/out/predictions.receipt.json"))
    assert (receipt["items"], receipt["ok"], receipt["balanced"]) == (5, 5, True)
    job = shipped.json("job", "show", "-n", "first")
    assert job["outputs"]["score"]["uri"] == "azureml://datastores/lake/paths/out/predictions.csv"
    shipped.ok("job", "download", "-n", "first", "-p", "got", cwd=folder)
    assert client.cat("lake/out/predictions.csv") in {path.read_bytes() for path in (folder / "got").rglob("*.csv")}
    again = shipped.run(*invoke[:-1], "second", "--output-path", "azureml://datastores/lake/paths/out/")
    assert again.returncode != 0
    assert "exists already" in again.stderr


def test_an_mltable_gives_frames_of_its_rows_and_columns(shipped: Shipped, folder: Path) -> None:
    (folder / "code" / "score.py").write_text("def run(mini_batch):\n    return mini_batch.astype(str).sum(axis=1)\n")
    for store in ("east", "west"):
        (folder / "table" / store).mkdir(parents=True)
        (folder / "table" / store / "1.csv").write_text("a;b\n01;x\n02;y\n03;z\n")
    (folder / "table" / "MLTable").write_text(
        "type: mltable\npaths: [{pattern: '*/*.csv'}]\ntransformations:\n"
        "- read_delimited: {delimiter: ';', encoding: utf8, header: all_files_same_headers}\n"
        "- skip: 1\n- take: 3\n- keep_columns: [a]\n"
        "- convert_column_types: [{columns: a, column_type: string}]\n"
        "- extract_columns_from_partition_format: {partition_format: '{store}/1.csv'}\n- drop_columns: []\n"
    )
    (folder / "deployment.yml").write_text(DEPLOYMENT.format(model="factor.txt").partition("batchpoint:")[0])
    shipped.ok("endpoint", "create", "-f", "endpoint.yml", cwd=folder)
    shipped.ok("deployment", "create", "-f", "deployment.yml", "--set-default", cwd=folder)
    shipped.ok("data", "create", "-n", "sales", "--type", "mltable", "--path", "table", cwd=folder)
    shipped.ok(
        "endpoint", "invoke", "-n", "doubles", "--input", "azureml:sales@latest", "--job-name", "table", "--stream"
    )
    lines = (shipped.output("table") / "predictions.csv").read_text().splitlines()
    assert lines == ["file,row,prediction", "east/1.csv,1,02east", "east/1.csv,2,03east", "west/1.csv,0,01west"]
    receipt = shipped.json("job", "show", "-n", "table")["receipt"]
    assert (receipt["items"], receipt["ok"], receipt["balanced"]) == (3, 3, True)


@pytest.mark.postgres
def test_predictions_go_to_a_table_in_postgresql_once(shipped: Shipped, folder: Path) -> None:
    import psycopg  # noqa: PLC0415 -- only where a server was found

    with running_postgres() as url:
        deploy(shipped, folder)
        options = ["--set", f"table.url={url}", "--set", "table.name=doubled"]
        for job in ("first", "second"):
            shipped.ok("endpoint", "invoke", "-n", "doubles", "--input", folder / "in", "--job-name", job, *options)
            shipped.ok("job", "stream", "-n", job)
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT file, row, prediction FROM doubled WHERE job = 'first' ORDER BY 1, 2")
            assert rows.fetchall() == [
                ("one.csv", 0, 2), ("one.csv", 1, 4), ("one.csv", 2, 6), ("two.csv", 0, 8), ("two.csv", 1, 10),
            ]  # fmt: skip
            total = connection.execute("SELECT count(*) FROM doubled").fetchone()
            assert total == (10,)
        assert "doubled" in shipped.json("job", "show", "-n", "first")["outputs"]["score"]["table"]


def test_a_package_that_the_server_lacks_is_installed_from_a_conda_file(shipped: Shipped, folder: Path) -> None:
    _need_package_index(folder)
    (folder / "code" / "score.py").write_text(
        "import roman\n\ndef run(mini_batch):\n    return [roman.toRoman(len(path)) > '' for path in mini_batch]\n"
    )
    (folder / "conda.yml").write_text(f"dependencies: [pip, {{pip: [{PACKAGE}]}}]\n")
    deployment = "name: blue\nendpoint_name: doubles\ncode_configuration: {code: code, scoring_script: score.py}\n"
    (folder / "deployment.yml").write_text(deployment + "environment: {conda_file: conda.yml}\n")
    shipped.ok("endpoint", "create", "-f", "endpoint.yml", cwd=folder)
    shipped.ok("deployment", "create", "-f", "deployment.yml", "--set-default", cwd=folder)
    shipped.ok("endpoint", "invoke", "-n", "doubles", "--input", folder / "in", "--job-name", "romans", "--stream")
    lines = (shipped.output("romans") / "predictions.csv").read_text().splitlines()
    assert lines == ["file,prediction", "one.csv,True", "two.csv,True"]
    python = json.loads((shipped.place / "jobs" / "romans" / "spec.json").read_text())["python"]
    assert python.startswith(str(shipped.home / "environments"))


def _need_package_index(folder: Path) -> None:
    """Skip where the package cannot be had; fail there when ``CI`` is true."""
    command = [_find_uv(), "pip", "install", "--dry-run", "--target", str(folder / "nothing"), PACKAGE]
    tried = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if tried.returncode != 0:
        reason = f"No package index answers: {tried.stderr.strip()[-300:]}"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason)
        pytest.skip(reason)


def _find_uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else "uv"
