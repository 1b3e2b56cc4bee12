"""One worker over its socket, as the driver sees it: a process, because it takes over streams, folder and signals."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batchpoint.scoring import worker as worker_module

WORKER = Path(worker_module.__file__)


class Driver:
    """Talks to one worker."""

    def __init__(self, folder: Path, script: str, flags: tuple[str, ...] = (), **changes: Any) -> None:
        self.folder = folder
        source = folder / "code" / "score.py"
        source.parent.mkdir()
        source.write_text(textwrap.dedent(script))
        (folder / "logs").mkdir()
        self.socket, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, *flags, str(WORKER), str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self.lines = self.socket.makefile("rb")
        self.send({**self.setup(source), **changes})

    def setup(self, source: Path) -> dict[str, Any]:
        return {
            "op": "setup",
            "job": "job-1",
            "instances": 2,
            "kind": "script",
            "script": str(source),
            "code_dir": str(source.parent),
            "arguments": ["--rate", "3"],
            "takes": "paths",
            "environment_variables": {"MINE": "yes"},
            "model": {"directory": "/models/1", "path": "/models/1/model.pkl"},
            "node": "node-1",
            "process": "process002",
            "segment": str(self.folder / "segment.rows"),
            "encoding": "csv",
            "output": {"row_keys": True, "key_columns": [], "passthrough": [], "format": "csv"},
            "csv": {"delimiter": ",", "encoding": "utf-8", "header": True, "column_names": None, "null_values": [""]},
            "schema": None,
            "logs": str(self.folder / "logs"),
            "output_dir": str(self.folder / "out"),
            "working_dir": str(self.folder / "work"),
            "stack_file": str(self.folder / "stack.txt"),
            "logging_level": "info",
            "threads": 1,
        }

    def send(self, message: dict[str, Any]) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lines.readline())
        return found

    def score(self, *names: str, start: int = 0, stop: int | None = None) -> dict[str, Any]:
        files = [{"name": name, "path": f"/in/{name}"} for name in names]
        last = len(files) if stop is None else stop
        part = {"id": 1, "mini_batch": 4, "start": start, "stop": last, "unit": "files", "files": files, "slices": []}
        self.send({"op": "score", **part})
        return self.hear()

    def log(self, path: str) -> str:
        return (self.folder / "logs" / path).read_text()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()
        self.process.wait(10)


Start = Callable[..., Driver]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    drivers: list[Driver] = []

    def begin(script: str, flags: tuple[str, ...] = (), **changes: Any) -> Driver:
        drivers.append(Driver(tmp_path, script, flags, **changes))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.close()


def test_a_worker_scores_parts_and_ends_when_told(start: Start) -> None:
    script = """
        def run(mini_batch):
            return [path.upper() for path in mini_batch]
        def shutdown():
            print("good night")
    """
    driver = start(script)
    assert driver.hear()["event"] == "ready"
    answer = driver.score("a", "b", "c", start=1, stop=3)
    assert (answer["event"], answer["rows"], answer["ok"], answer["offset"]) == ("succeeded", 2, 2, 0)
    assert (driver.folder / "segment.rows").read_text() == "b,/IN/B\nc,/IN/C\n"
    assert set(answer["seconds"]) == {"read", "run", "write"}
    driver.send({"op": "stop"})
    assert driver.process.wait(10) == 0
    assert driver.log("user/stdout/node-1/process002.stdout.txt") == "good night\n"


def test_a_script_finds_the_surroundings_of_azure_ml(start: Start) -> None:
    script = """
        import os, sys
        from azureml_user.parallel_run import EntryScript
        def run(mini_batch, mini_batch_context):
            entry = EntryScript()
            entry.logger.info("scoring")
            assert entry is EntryScript()
            names = "AZUREML_MODEL_DIR MODEL_PATH AZUREML_RUN_ID AZUREML_NODE_COUNT MINE OMP_NUM_THREADS"
            facts = [os.environ[name] for name in names.split()]
            facts += [str(mini_batch_context.minibatch_index), str(mini_batch_context.partition_key_value)]
            facts += [" ".join(sys.argv[1:]), os.path.basename(os.getcwd()), entry.agent_name]
            facts += [str(entry.output_dir == os.environ["AZUREML_BI_OUTPUT_PATH"]), __name__]
            return ["|".join(facts)]
    """
    driver = start(script)
    driver.hear()
    assert driver.score("a")["event"] == "succeeded"
    row = (driver.folder / "segment.rows").read_text()
    facts = "/models/1|/models/1/model.pkl|job-1|2|yes|1|4|{}|--rate 3|work|node-1_process002|True|score"
    assert row == f"a,{facts}\n"
    line = driver.log("user/entry_script_log/node-1/process002.log.txt")
    assert "|EntryScript|INFO|" in line
    assert "|run()|scoring" in line


def test_what_a_script_logs_with_mlflow_stays_in_the_folder_of_the_job(start: Start) -> None:
    script = """
        import mlflow
        def run(mini_batch):
            mlflow.log_metric("files", len(mini_batch))
            return mini_batch
    """
    driver = start(script)
    driver.hear()
    assert driver.score("a")["event"] == "succeeded"
    [metric] = (driver.folder / "mlruns").glob("*/*/metrics/files")
    assert metric.read_text().split()[1] == "1.0"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("raise ValueError('no')", "ValueError"),
        ("raise SystemExit(1)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise MemoryError", "MemoryError"),
        ("return None", "TypeError"),
        ("return 'text'", "TypeError"),
        ("return (path for path in mini_batch)", "TypeError"),
    ],
)
def test_whatever_run_does_wrong_is_an_answer_and_the_worker_lives_on(start: Start, body: str, kind: str) -> None:
    script = f"def run(mini_batch):\n    if mini_batch[0].endswith('good'):\n        return ['fine']\n    {body}\n"
    driver = start(script)
    driver.hear()
    answer = driver.score("bad")
    assert (answer["event"], answer["error"]["type"]) == ("failed", kind)
    assert driver.score("good")["event"] == "succeeded"
    assert kind in driver.log("user/error/node-1/process002.txt")


def test_the_traceback_shows_the_script_and_not_the_platform(start: Start) -> None:
    driver = start("def run(mini_batch):\n    return deeper()\ndef deeper():\n    raise ValueError('here')\n")
    driver.hear()
    text = driver.score("a")["error"]["traceback"]
    assert "deeper" in text
    assert "worker.py" not in text


def test_the_folder_of_the_code_stays_as_it_was(start: Start, tmp_path: Path) -> None:
    driver = start("def run(mini_batch):\n    import beside.deeper\n    return [beside.deeper.VALUE]\n")
    driver.hear()
    (tmp_path / "code" / "beside").mkdir()
    (tmp_path / "code" / "beside" / "deeper.py").write_text("VALUE = 1\n")
    assert driver.score("a")["event"] == "succeeded"
    assert sorted(path.name for path in (tmp_path / "code").rglob("*")) == ["beside", "deeper.py", "score.py"]


def test_a_script_without_run_is_told_so(start: Start) -> None:
    answer = start("def init():\n    pass\n").hear()
    assert answer["event"] == "init_failed"
    assert "has no function run(mini_batch)" in answer["error"]["message"]


def test_a_worker_ends_when_its_driver_is_gone(start: Start) -> None:
    driver = start("def run(mini_batch):\n    return mini_batch\n")
    driver.hear()
    driver.close()
    assert driver.process.returncode == 0


def test_rows_reach_the_script_as_a_data_frame_with_their_keys_beside_the_result(start: Start) -> None:
    script = """
        def run(mini_batch):
            assert list(mini_batch.index) == [0, 1]
            doubled = mini_batch.assign(double=mini_batch["x"] * 2)[["double"]]
            mini_batch["x"] = 0
            return doubled
    """
    output = {"row_keys": True, "key_columns": [], "passthrough": ["x"], "format": "csv"}
    driver = start(script, output=output, takes="dataframe")
    assert "pandas" not in driver.hear()["modules"], "nothing heavy is imported before it is needed"
    path = driver.folder / "in.csv"
    path.write_text("x,y\n1,a\n2,b\n3,c\n")
    piece = {"name": "in.csv", "path": str(path), "format": "csv", "offset": 4, "length": 12, "first_row": 0, "rows": 3}
    driver.send({"op": "schema", "schema": {"columns": ["x", "y"], "types": ["int64", "string"], "strict": []}})
    part = {"id": 9, "mini_batch": 0, "start": 1, "stop": 3, "unit": "rows", "files": [], "slices": [piece]}
    driver.send({"op": "score", **part})
    answer = driver.hear()
    assert (answer["event"], answer["id"], answer["ok"]) == ("succeeded", 9, 2)
    assert (driver.folder / "segment.rows").read_text() == "in.csv,1,2,4\nin.csv,2,3,6\n"


def test_the_key_of_a_failed_row_is_that_of_the_input_whatever_the_script_did_to_it(start: Start) -> None:
    script = """
        def run(mini_batch):
            mini_batch["x"] = -1
            raise ValueError("bad")
    """
    output = {"row_keys": True, "key_columns": ["x", "y"], "passthrough": [], "format": "csv"}
    driver = start(script, output=output, takes="dataframe")
    driver.hear()
    path = driver.folder / "in.csv"
    path.write_text("x,y\n1,2.5\n2,\n")
    piece = {"name": "in.csv", "path": str(path), "format": "csv", "offset": 4, "length": 9, "first_row": 0, "rows": 2}
    driver.send({"op": "schema", "schema": {"columns": ["x", "y"], "types": ["int64", "double"], "strict": []}})
    part = {"id": 9, "mini_batch": 0, "start": 1, "stop": 2, "unit": "rows", "files": [], "slices": [piece]}
    driver.send({"op": "score", **part})
    assert driver.hear()["key"] == {"x": "2", "y": None}


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_a_file_that_cannot_be_read_is_told_from_content_and_scripts_that_fail(start: Start, format_: str) -> None:
    script = """
        def run(mini_batch):
            raise OSError(5, "of the script's own")
    """
    driver = start(script, takes="dataframe", schema={"columns": ["x"], "types": ["int64"], "strict": []})
    driver.hear()
    path = driver.folder / f"in.{format_}"
    piece = {
        "name": path.name,
        "path": str(path),
        "format": format_,
        "offset": 2,
        "length": 2,
        "first_row": 0,
        "rows": 1,
    }
    part = {"id": 9, "mini_batch": 0, "start": 0, "stop": 1, "unit": "rows", "files": [], "slices": [piece]}

    def told() -> tuple[bool, str]:
        driver.send({"op": "score", **part})
        answer = driver.hear()
        return answer["unread"], answer["error"]["type"]

    assert told() == (True, "FileNotFoundError")
    path.write_text("x\n1\n")
    if format_ == "parquet":
        assert told() == (False, "UnreadableRowsError")
        pd.DataFrame({"x": [1]}).to_parquet(path)
    assert told() == (False, "OSError")


def test_an_error_without_words_and_one_with_too_many_are_told_all_the_same(start: Start) -> None:
    script = """
        class Silent(Exception):
            def __str__(self):
                raise RuntimeError("no words")
        def run(mini_batch):
            raise Silent() if mini_batch[0].endswith("silent") else ValueError("x" * 1_000_000 + "end")
    """
    driver = start(script)
    driver.hear()
    answer = driver.score("silent")
    assert (answer["event"], answer["error"]["type"]) == ("failed", "Silent")
    message = driver.score("loud")["error"]["message"]
    assert len(message) < 25_000
    assert message.startswith("xxx")
    assert message.endswith("end")


def test_an_error_that_quotes_a_name_which_is_no_text_can_be_written_down(start: Start) -> None:
    driver = start("import os\ndef run(mini_batch):\n    raise ValueError(os.fsdecode(b'caf\\xe9.csv'))\n")
    driver.hear()
    error = driver.score("a")["error"]
    assert error["message"].encode() == rb"caf\udce9.csv"
    assert rb"caf\udce9.csv" in error["traceback"].encode()


def test_a_log_that_cannot_be_written_costs_no_worker(start: Start) -> None:
    driver = start("def run(mini_batch):\n    raise ValueError('bad')\n")
    driver.hear()
    (driver.folder / "logs" / "user" / "error").write_text("no folder")
    assert driver.score("a")["error"]["type"] == "ValueError"


def test_the_keys_of_rows_follow_the_slices() -> None:
    slices = [{"name": "a", "first_row": 5, "rows": 3}, {"name": "b", "first_row": 0, "rows": 4}]
    assert worker_module.row_keys(slices, 1, 5) == [("a", 6, 2), ("b", 0, 2)]
