"""Bad input gets a clear error that says what happened, to what, and what to do. No traceback for a user's mistake."""

from __future__ import annotations

import gzip
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from shipped import Shipped

GOOD = "def run(rows):\n    return rows['a']\n"
TABLE = "a,b\n1,x\n2,y\n3,z\n"

DEPLOYMENT = """
name: blue
endpoint_name: bad
code_configuration: {code: ./code, scoring_script: score.py}
model: {path: ./model.txt}
settings: {retry_settings: {max_retries: 0, timeout: 5}}
batchpoint: {mini_batch_type: dataframe, max_worker_losses: 1}
"""


@dataclass
class Desk:
    """A folder with a deployment's files, and the product."""

    shipped: Shipped
    folder: Path

    def script(self, text: str) -> None:
        (self.folder / "code").mkdir(exist_ok=True)
        (self.folder / "code" / "score.py").write_text(textwrap.dedent(text))

    def deploy(self, script: str = GOOD, deployment: str = DEPLOYMENT) -> None:
        self.script(script)
        (self.folder / "model.txt").write_text("a model")
        (self.folder / "deployment.yml").write_text(deployment)
        self.shipped.ok("endpoint", "create", "-n", "bad")
        self.shipped.ok("deployment", "create", "-f", self.folder / "deployment.yml", "--set-default")

    def write(self, name: str, contents: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return path

    def invoke(self, data: Path, *more: str) -> tuple[int, str]:
        done = self.shipped.run("endpoint", "invoke", "-n", "bad", "--input", data, "--stream", *more)
        return done.returncode, done.stdout + done.stderr

    def refused(self, *arguments: str | Path) -> str:
        """What a command says that is refused for a mistake of the user."""
        done = self.shipped.run(*arguments)
        told = done.stdout + done.stderr
        assert done.returncode not in (0, 1), told
        assert "Traceback" not in told
        return told


@pytest.fixture
def shipped(shared: Shipped) -> Shipped:
    return shared


@pytest.fixture
def desk(shipped: Shipped, tmp_path: Path) -> Desk:
    folder = tmp_path / "desk"
    folder.mkdir()
    return Desk(shipped, folder)


def test_what_is_wrong_with_a_declaration_is_told_when_it_is_made(desk: Desk) -> None:
    create = ("deployment", "create", "-f", desk.folder / "deployment.yml")
    desk.shipped.ok("endpoint", "create", "-n", "bad")
    desk.write("model.txt", "a model")
    desk.write("deployment.yml", DEPLOYMENT)

    desk.script("def init():\n    pass\n")
    assert "run" in desk.refused(*create)

    desk.script("def run(rows):\n    return rows[\n")
    told = desk.refused(*create)
    assert "score.py" in told
    assert "line" in told

    desk.script(GOOD)
    desk.write("deployment.yml", DEPLOYMENT.replace("retry_settings", "retry_setings"))
    told = desk.refused(*create)
    assert "retry_setings" in told
    assert "retry_settings" in told
    assert "deployment.yml:6" in told

    desk.write("deployment.yml", DEPLOYMENT.replace("model.txt", "no-such-model"))
    assert "no-such-model" in desk.refused(*create)

    assert "MLmodel" in desk.refused("model", "create", "-n", "m", "-p", desk.folder / "code", "-t", "mlflow_model")
    desk.write("mlflow/MLmodel", "flavors: {}\n")
    assert "flavor" in desk.refused("model", "create", "-n", "m", "-p", desk.folder / "mlflow", "-t", "mlflow_model")
    assert "1abc" in desk.refused("endpoint", "create", "-n", "1abc")
    assert "ab" in desk.refused("endpoint", "create", "-n", "ab")


def test_what_is_in_use_cannot_be_deleted(desk: Desk) -> None:
    desk.deploy()
    told = desk.refused("deployment", "delete", "-n", "blue", "-e", "bad", "-y")
    assert "default" in told
    assert desk.refused("compute", "delete", "-n", "local", "-y")
    data = desk.write("data.csv", TABLE)
    invoke = ("endpoint", "invoke", "-n", "bad", "--input", data, "--job-name", "twice")
    desk.shipped.ok(*invoke)
    assert "twice" in desk.refused(*invoke)
    desk.shipped.wait("twice")
    desk.shipped.ok("endpoint", "create", "-n", "idle")
    assert "No valid deployments" in desk.refused("endpoint", "invoke", "-n", "idle", "--input", data)


def test_an_input_with_nothing_to_score_is_told_at_submit_or_in_the_job(desk: Desk) -> None:
    desk.deploy()
    (desk.folder / "empty").mkdir()
    for data, words in (
        (desk.folder / "empty", "empty"),
        (desk.folder / "nowhere.csv", "nowhere.csv"),
        (desk.write("zero.csv", ""), "zero.csv"),
        (desk.write("header-only.csv", "a,b\n"), "header-only.csv"),
    ):
        code, told = desk.invoke(data)
        assert code != 0, told
        assert words in told
        assert "Traceback" not in told


def test_dirty_rows_and_stray_files_cost_no_more_than_themselves(desk: Desk) -> None:
    desk.deploy()
    desk.write("data/good.csv", TABLE)
    desk.write("data/ragged.csv", "a,b\n1,x\n2\n3,z\n")
    desk.write("data/latin.csv", "a,b\n1,x\n2,caf\xe9\n3,z\n".encode("latin-1"))
    desk.write("data/notes.txt", "not a table")
    desk.write("data/cut.parquet", b"PAR1 and then nothing")
    desk.write("data/zipped.csv.gz", gzip.compress(TABLE.encode()))
    code, told = desk.invoke(desk.folder / "data", "--job-name", "dirty")
    assert code == 0, told
    errors = (desk.shipped.output("dirty") / "errors.jsonl").read_text()
    for file in ("ragged.csv", "latin.csv", "notes.txt", "cut.parquet"):
        assert errors.count(f'"file": "{file}"') + errors.count(f'"file":"{file}"') == 1, (file, errors)
    assert len((desk.shipped.output("dirty") / "predictions.csv").read_text().splitlines()) == 1 + 3 + 2 + 2 + 3


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("def run(rows):\n    return 5\n", "should return a list or a pandas DataFrame"),
        ("def run(rows):\n    pass\n", "should return a list or a pandas DataFrame"),
        ("def init():\n    raise RuntimeError('no weights')\n\ndef run(rows):\n    return []\n", "no weights"),
        ("import os\n\ndef run(rows):\n    os._exit(3)\n", "3"),
        ("import os, signal\n\ndef run(rows):\n    os.kill(os.getpid(), signal.SIGSEGV)\n", "SIGSEGV"),
        ("import time\n\ndef run(rows):\n    time.sleep(600)\n", "5"),
    ],
    ids=["wrong type", "None", "init fails", "exits", "segfaults", "hangs"],
)
def test_a_script_that_cannot_score_fails_the_job_with_its_own_story(desk: Desk, script: str, words: str) -> None:
    desk.deploy(
        script,
        DEPLOYMENT.replace("timeout: 5", "timeout: 1").replace("max_worker", "task_overhead_timeout: 4, max_worker"),
    )
    data = desk.write("data.csv", "a,b\n1,x\n")
    code, told = desk.invoke(data)
    assert code == 1, told
    assert words in told
    assert "exit code 42" not in told


def test_a_token_that_is_revoked_or_unknown_opens_nothing(desk: Desk) -> None:
    desk.shipped.ok("up")
    token = desk.shipped.json("token", "create", "-n", "guest", "--role", "reader")["secret"]
    guest = Shipped(desk.shipped.home, {"BATCHPOINT_URL": desk.shipped.server()["url"], "BATCHPOINT_TOKEN": token})
    guest.ok("endpoint", "list")
    done = guest.run("endpoint", "create", "-n", "mine")
    assert done.returncode == 5, done.stderr
    desk.shipped.ok("token", "revoke", "-n", "guest", "-y")
    done = guest.run("endpoint", "list")
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_that_is_split_by_rows_gets_rows(desk: Desk) -> None:
    desk.deploy(deployment=DEPLOYMENT.replace("mini_batch_type: dataframe", "split: rows"))
    code, told = desk.invoke(desk.write("data.csv", TABLE), "--job-name", "rows")
    assert code == 0, told
    assert (
        desk.shipped.output("rows") / "predictions.csv"
    ).read_text() == "file,row,a\ndata.csv,0,1\ndata.csv,1,2\ndata.csv,2,3\n"


def test_storing_an_endpoint_again_keeps_its_default_deployment(desk: Desk) -> None:
    desk.deploy()
    desk.shipped.ok("endpoint", "create", "-n", "bad", "--description", "twice")
    shown = desk.shipped.json("endpoint", "show", "-n", "bad")
    assert (shown["defaults"], shown["description"]) == ({"deployment_name": "blue"}, "twice")
    assert shown["scoring_uri"].endswith("/batchEndpoints/bad/jobs")


def test_keys_and_passed_through_columns_of_a_csv_stay_the_texts_that_they_are(desk: Desk) -> None:
    desk.deploy(script="def run(rows):\n    return rows['a'] * 2\n")
    table = "id,zip,a\n9007199254740993123,00501,1\n,02134,2\n7,None,3\n"
    told = desk.invoke(
        desk.write("data.csv", table), "--job-name", "keyed", "--set", "key_columns=[id]", "--set", "passthrough=[zip]"
    )
    assert told[0] == 0, told[1]
    written = (desk.shipped.output("keyed") / "predictions.csv").read_text()
    assert written == "id,zip,a\n9007199254740993123,00501,2\n,02134,4\n7,None,6\n"
