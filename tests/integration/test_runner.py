"""The runner with real worker processes: only they can show what a kill, a hang or an exit does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchpoint.entities.jobs import Reason
from batchpoint.errors import ConflictError
from batchpoint.scoring import fork_server_access, runner
from batchpoint.scoring.ledger import Ledger
from batchpoint.scoring.spec import (
    InputSpec,
    Location,
    OutputSpec,
    RetrySpec,
    ScoringSpec,
    ScriptSpec,
    SplitSpec,
    ThresholdSpec,
)

Make = Callable[..., Path]

NAMES = """
    import os
    def run(mini_batch):
        return [os.path.basename(path) for path in mini_batch]
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a run's folder: a script, so many files to score, and settings."""

    def folder(script: str, *, files: int = 6, per_mini_batch: int = 2, name: str = "run", **settings: Any) -> Path:
        source = tmp_path / f"{name}-code" / "score.py"
        source.parent.mkdir()
        source.write_text(textwrap.dedent(script))
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        for number in range(files):
            (data / f"{number:04}.txt").write_text(str(number))
        run = tmp_path / name
        run.mkdir()
        spec = ScoringSpec(
            job=name,
            python=sys.executable,
            script=ScriptSpec(kind="script", path=str(source), code_dir=str(source.parent), arguments=["--a", "1"]),
            input=InputSpec(locations=[Location(url=f"{data}/")]),
            split=SplitSpec(by="files", files=per_mini_batch),
            output=OutputSpec(folder=Location(url=str(tmp_path / f"{name}-out"))),
            **settings,
        )
        spec.write(run)
        return run

    yield folder
    deadline = time.monotonic() + 5
    while (left := processes_in(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, "processes were left behind"


def processes_in(folder: Path) -> list[int]:
    """Processes whose working folder or command line lies below ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            place = str((entry / "cwd").readlink()) + (entry / "cmdline").read_text()
        except OSError:
            continue
        if str(folder) in place:
            found.append(int(entry.name))
    return found


def outcome(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "outcome.json").read_bytes())
    return found


def predictions(folder: Path) -> str:
    return (folder.with_name(f"{folder.name}-out") / "predictions.csv").read_text()


def errors(folder: Path) -> list[dict[str, Any]]:
    lines = (folder.with_name(f"{folder.name}-out") / "errors.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def expected(files: int, without: tuple[int, ...] = ()) -> str:
    lines = [f"{number:04}.txt,{number:04}.txt\n" for number in range(files) if number not in without]
    return "file,prediction\n" + "".join(lines)


def committed_bytes(folder: Path) -> bytes:
    """The rows in the order of the ledger, whatever segments they lie in."""
    pieces = []
    for _, record in sorted(Ledger.read(folder).items()):
        for part in record.parts:
            with (folder / "segments" / part.segment).open("rb") as segment:
                segment.seek(part.offset)
                pieces.append(segment.read(part.length))
    return b"".join(pieces)


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The runner as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "batchpoint.scoring.runner"],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(runner.__file__).parents[2])},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"folder": str(folder)}).encode() + b"\n")
    process.stdin.close()
    return process


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


def test_a_runner_parent_forks_a_runner_for_each_line_and_they_outlive_it(make: Make) -> None:
    script = """
        import time
        def run(mini_batch):
            time.sleep(0.3)
            return mini_batch
    """
    folders = [make(script, files=2, name=name) for name in ("one", "two")]
    parent = subprocess.Popen(
        [sys.executable, "-m", "batchpoint.scoring.runner_parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(runner.__file__).parents[2])},
    )
    lines = b"".join(json.dumps({"folder": str(folder)}).encode() + b"\n" for folder in folders)
    said, _ = parent.communicate(lines, timeout=30)
    assert [list(json.loads(line)) for line in said.splitlines()] == [["pid"], ["pid"]]
    assert parent.returncode == 0
    assert not (folders[1] / "outcome.json").exists(), "the parent waited for its runners"
    for folder in folders:
        wait_for((folder / "outcome.json").exists)
        assert outcome(folder)["reason"] == "completed"
        assert (folder / "logs" / "runner.log").read_text() == ""


def test_a_run_scores_every_file_in_order_and_says_so(make: Make) -> None:
    folder = make(NAMES, files=7, processes_per_instance=2)
    assert runner.run(folder) is Reason.COMPLETED
    assert predictions(folder) == expected(7)
    assert outcome(folder)["receipt"]["balanced"]
    progress = json.loads((folder / "progress.json").read_bytes())
    assert (progress["ok"], progress["phase"], progress["fraction"]) == (7, "finished", 1.0)
    assert "7 items" in (folder / "logs" / "user" / "job_result.txt").read_text()
    assert (
        "All 4 mini batches have been processed."
        in next((folder / "logs").glob("job_progress_overview.*.txt")).read_text()
    )
    assert runner.run(folder) is Reason.COMPLETED, "a run that is over has nothing to do"


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="this system does not tell how busy it is")
def test_a_short_run_too_says_how_busy_the_machine_was(make: Make) -> None:
    folder = make("def run(mini_batch):\n    return mini_batch\n", files=1)
    assert runner.run(folder) is Reason.COMPLETED
    lines = (folder / "logs" / "sys" / "perf" / "node-0" / "node_resource_usage.csv").read_text().splitlines()
    assert lines[0].startswith("Utc Time,Cpu Percent,")
    assert [len(line.split(",")) for line in lines] == [14, 14]


def test_a_bad_file_is_isolated_and_told_with_its_traceback(make: Make) -> None:
    script = """
        import os
        def run(mini_batch):
            if any(path.endswith("0003.txt") for path in mini_batch):
                raise ValueError("no 3, please")
            return [os.path.basename(path) for path in mini_batch]
    """
    folder = make(script, per_mini_batch=6, retry=RetrySpec(max_retries=1))
    assert runner.run(folder) is Reason.COMPLETED
    assert predictions(folder) == expected(6, without=(3,))
    (error,) = errors(folder)
    assert (error["file"], error["exception"], error["message"]) == ("0003.txt", "ValueError", "no 3, please")
    assert "worker.py" not in error["traceback"]
    assert "0003.txt, attempt" in (folder / "logs" / "user" / "job_error.txt").read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_row_of_a_table_is_named_and_all_others_are_predicted(make: Make, tmp_path: Path, workers: int) -> None:
    script = """
        def run(mini_batch):
            if (mini_batch["x"] == 777).any():
                raise ValueError("not this one")
            return mini_batch[["x"]] * 2
    """
    folder = make(script, files=0, processes_per_instance=workers, retry=RetrySpec(max_retries=1))
    (tmp_path / "data" / "table.csv").write_text("x,y\n" + "".join(f"{x},a\n" for x in range(1000)))
    spec = json.loads((folder / "spec.json").read_text())
    spec["script"]["takes"], spec["split"] = "dataframe", {"by": "rows", "rows": 300}
    spec["output"]["key_columns"] = ["y"]
    (folder / "spec.json").write_text(json.dumps(spec))
    assert runner.run(folder) is Reason.COMPLETED
    assert predictions(folder) == "y,x\n" + "".join(f"a,{2 * x}\n" for x in range(1000) if x != 777)
    (error,) = errors(folder)
    assert (error["file"], error["row"], error["key"]) == ("table.csv", 777, {"y": "a"})
    assert outcome(folder)["receipt"]["failed"] == 1


def test_rows_of_a_file_that_is_gone_fail_together_and_each_is_named(make: Make, tmp_path: Path) -> None:
    data, progress = tmp_path / "data", tmp_path / "run" / "progress.json"
    script = f"""
        import json, os, time
        def run(mini_batch):
            while not os.path.exists("{progress}") or not json.load(open("{progress}"))["planned_all"]:
                time.sleep(0.01)
            if os.path.exists("{data}/b.csv"):
                os.unlink("{data}/b.csv")
            return mini_batch * 2
    """
    folder = make(script, files=0, retry=RetrySpec(max_retries=2))
    for name in "ab":
        (data / f"{name}.csv").write_text("x\n" + "".join(f"{x}\n" for x in range(100)))
    spec = json.loads((folder / "spec.json").read_text())
    spec["script"]["takes"], spec["split"] = "dataframe", {"by": "rows", "rows": 100}
    (folder / "spec.json").write_text(json.dumps(spec))
    assert runner.run(folder) is Reason.COMPLETED
    assert outcome(folder)["receipt"]["failed"] == 100
    assert [(error["file"], error["row"], error["attempt"]) for error in errors(folder)] == [
        ("b.csv", row, 3) for row in range(100)
    ]
    assert {error["exception"] for error in errors(folder)} == {"FileNotFoundError"}
    told = (folder / "logs" / "user" / "error").rglob("*.txt")
    assert sum(log.read_text().count("FileNotFoundError: ") for log in told) == 3


def test_a_job_that_fails_tells_its_first_failing_file(make: Make) -> None:
    folder = make(
        "def run(mini_batch):\n    return 1 / 0\n", thresholds=ThresholdSpec(items=0), retry=RetrySpec(max_retries=0)
    )
    assert runner.run(folder) is Reason.ERROR_THRESHOLD_EXCEEDED
    error = outcome(folder)["error"]
    assert (error["code"], error["exception"]) == ("error_threshold_exceeded", "ZeroDivisionError")
    assert error["file"].endswith(".txt")
    assert "return 1 / 0" in error["traceback"]


def test_each_failed_item_is_named_when_the_threshold_is_exceeded_within_a_mini_batch(make: Make) -> None:
    script = """
        def run(mini_batch):
            raise ValueError("bad")
    """
    folder = make(
        script, files=40, per_mini_batch=40, retry=RetrySpec(max_retries=0), thresholds=ThresholdSpec(items=10)
    )
    assert runner.run(folder) is Reason.ERROR_THRESHOLD_EXCEEDED
    lines = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    assert len({line["file"] for line in lines}) == len(lines) == 11
    assert "bad" in (folder / "logs" / "user" / "job_error.txt").read_text()


def test_a_file_whose_name_is_not_utf8_is_scored_and_told(make: Make, tmp_path: Path) -> None:
    folder = make(NAMES.replace("os.path.basename(path)", "1"), files=1)
    (tmp_path / "data" / os.fsdecode(b"\xff.txt")).write_text("odd")
    assert runner.run(folder) is Reason.COMPLETED
    assert predictions(folder) == "file,prediction\n0000.txt,1\n\\xff.txt,1\n"
    assert [file["file"] for file in outcome(folder)["receipt"]["files"]] == ["0000.txt", "\\xff.txt"]


def test_a_worker_killed_in_the_middle_is_replaced_and_nothing_is_lost(make: Make) -> None:
    script = """
        import os, time
        def run(mini_batch):
            print(os.getpid(), flush=True)
            time.sleep(0.05)
            return [os.path.basename(path) for path in mini_batch]
    """
    folder = make(script, files=30, per_mini_batch=1)
    stdout = folder / "logs" / "user" / "stdout" / "node-0" / "process000.stdout.txt"
    killed: list[int] = []

    def kill() -> None:
        pid = int(wait_for(lambda: stdout.exists() and stdout.read_text().split())[0])
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert runner.run(folder) is Reason.COMPLETED
    thread.join()
    assert predictions(folder) == expected(30)
    assert errors(folder) == []
    assert json.loads((folder / "progress.json").read_bytes())["worker_losses"] == 1
    assert "memory ran out" in (folder / "logs" / "sys" / "node" / "node-0" / "_main.txt").read_text()


def test_a_run_whose_runner_was_killed_is_resumed_and_ends_with_the_same_bytes(make: Make, tmp_path: Path) -> None:
    script = """
        import os, time
        def run(mini_batch):
            time.sleep(0.1)
            if any(path.endswith("7.txt") for path in mini_batch):
                raise ValueError("seven")
            return [os.path.basename(path) for path in mini_batch]
    """
    settings: dict[str, Any] = {"files": 60, "per_mini_batch": 3, "retry": RetrySpec(max_retries=0)}
    calm = make(script, name="calm", **settings)
    assert runner.run(calm) is Reason.COMPLETED
    folder = make(script, name="stormy", processes_per_instance=2, **settings)
    for wanted in (1, 8):
        process = start(folder)
        wait_for(lambda count=wanted: len(Ledger.read(folder)) >= count)
        process.kill()
        process.wait()
        assert not (folder / "outcome.json").exists()
    before = len(Ledger.read(folder))
    assert start(folder).wait(30) == 0
    assert 8 <= before < 20, "it was killed before the end"
    assert outcome(folder)["reason"] == "completed"
    assert committed_bytes(folder) == committed_bytes(calm)
    assert predictions(folder) == predictions(calm)
    hide = str(tmp_path)
    assert json.dumps(errors(folder)).replace("stormy", "calm") == json.dumps(errors(calm)), hide


def test_a_hung_run_is_killed_and_its_stack_is_kept(make: Make) -> None:
    script = """
        import os, time
        def stuck_here():
            time.sleep(600)
        def run(mini_batch):
            if mini_batch[0].endswith("0001.txt"):
                stuck_here()
            return [os.path.basename(path) for path in mini_batch]
    """
    retry = RetrySpec(max_retries=0, timeout=0.3, task_overhead_timeout=0.1)
    folder = make(script, files=3, per_mini_batch=1, retry=retry)
    assert runner.run(folder) is Reason.COMPLETED
    assert predictions(folder) == expected(3, without=(1,))
    (error,) = errors(folder)
    assert error["exception"] == "MiniBatchTimeout"
    assert "stuck_here" in error["traceback"]
    (told,) = (folder / "logs" / "sys" / "error" / "node-0").iterdir()
    assert '"status": "RUN_TIMEOUT"' in told.read_text()


def test_a_script_that_ends_its_process_fails_only_its_own_file(make: Make) -> None:
    script = """
        import os
        def run(mini_batch):
            if any(path.endswith("0002.txt") for path in mini_batch):
                os._exit(3)
            return [os.path.basename(path) for path in mini_batch]
    """
    folder = make(script, files=4, per_mini_batch=4, retry=RetrySpec(max_worker_losses=0))
    assert runner.run(folder) is Reason.COMPLETED
    assert predictions(folder) == expected(4, without=(2,))
    (error,) = errors(folder)
    assert error["exception"] == "WorkerLost"
    assert "exit code 3" in error["message"]


def test_sys_exit_in_run_is_a_failed_file_and_the_worker_lives_on(make: Make) -> None:
    script = """
        import os, sys
        def run(mini_batch):
            if mini_batch[0].endswith("0000.txt"):
                sys.exit(1)
            return [str(os.getpid()) for _ in mini_batch]
    """
    folder = make(script, files=3, per_mini_batch=1, retry=RetrySpec(max_retries=0))
    assert runner.run(folder) is Reason.COMPLETED
    assert errors(folder)[0]["exception"] == "SystemExit"
    assert len({line.split(",")[1] for line in predictions(folder).splitlines()[1:]}) == 1


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("def init():\n    raise RuntimeError('no model')\ndef run(mini_batch):\n    return []\n", "no model"),
        ("def init():\n    pass\n", "has no function run(mini_batch)"),
        ("import nowhere_to_be_found\ndef run(mini_batch):\n    return []\n", "nowhere_to_be_found"),
        ("def run(mini_batch:\n", "SyntaxError"),
    ],
)
def test_a_script_that_cannot_start_fails_the_job_with_its_own_traceback(make: Make, script: str, said: str) -> None:
    folder = make(script)
    assert runner.run(folder) is Reason.SCORING_SCRIPT_FAILED
    error = outcome(folder)["error"]
    assert error["code"] == "scoring_script_failed"
    assert said in error["message"]
    assert "score.py" in error["traceback"] or "score.py" in error["message"]


def test_an_interpreter_that_does_not_exist_fails_the_job_clearly(make: Make) -> None:
    folder = make(NAMES)
    text = (folder / "spec.json").read_text().replace(json.dumps(sys.executable), '"/nowhere/python"')
    (folder / "spec.json").write_text(text)
    assert runner.run(folder) is Reason.ENVIRONMENT_FAILED
    assert "/nowhere/python" in outcome(folder)["error"]["message"]


def test_missing_input_fails_the_job_clearly(make: Make, tmp_path: Path) -> None:
    folder = make(NAMES)
    for file in (tmp_path / "data").iterdir():
        file.unlink()
    (tmp_path / "data").rmdir()
    assert runner.run(folder) is Reason.INPUT_UNAVAILABLE
    assert outcome(folder)["error"]["code"] == "input_unavailable"


def test_cancel_stops_a_busy_run_within_two_seconds_and_keeps_what_is_committed(make: Make) -> None:
    script = """
        import os, time
        def run(mini_batch):
            time.sleep(0 if mini_batch[0].endswith("0000.txt") else 60)
            return [os.path.basename(path) for path in mini_batch]
    """
    folder = make(script, files=3, per_mini_batch=1)
    process = start(folder)
    wait_for(lambda: len(Ledger.read(folder)) == 1)
    (folder / "cancel").touch()
    asked = time.monotonic()
    assert process.wait(10) == 0
    assert time.monotonic() - asked < 2
    assert outcome(folder)["reason"] == "canceled_by_user"
    assert len(Ledger.read(folder)) == 1


def test_cancel_does_not_wait_for_workers_that_answer_nothing(make: Make) -> None:
    script = """
        import os, signal
        def run(mini_batch):
            open(os.environ["AZUREML_BI_OUTPUT_PATH"] + f"/{os.getpid()}", "w").close()
            os.kill(os.getpid(), signal.SIGSTOP)
    """
    folder = make(script, files=12, processes_per_instance=6)
    process = start(folder)
    wait_for(lambda: len(list((folder / "user_output").glob("*"))) == 6)
    asked_at = time.monotonic()
    (folder / "cancel").touch()
    assert process.wait(10) == 0
    assert time.monotonic() - asked_at < 2
    assert outcome(folder)["reason"] == "canceled_by_user"


def test_cancel_is_heard_while_shutdown_goes_on(make: Make) -> None:
    script = """
        import os, time
        def run(mini_batch):
            return list(mini_batch)
        def shutdown():
            open(os.environ["AZUREML_BI_OUTPUT_PATH"] + "/shutdown", "w").close()
            time.sleep(60)
    """
    folder = make(script, files=2)
    process = start(folder)
    wait_for((folder / "user_output" / "shutdown").exists)
    asked_at = time.monotonic()
    (folder / "cancel").touch()
    assert process.wait(10) == 0
    assert time.monotonic() - asked_at < 2
    assert outcome(folder)["reason"] == "canceled_by_user"
    assert not folder.with_name("run-out").exists()


def test_a_worker_that_dies_while_its_own_child_lives_is_lost_at_once_and_so_is_the_child(make: Make) -> None:
    """As with a data loader's processes: the child holds the worker's socket open, so its end alone tells nothing."""
    script = """
        import os, time
        def run(mini_batch):
            marker = os.environ["AZUREML_BI_OUTPUT_PATH"] + "/died"
            if not os.path.exists(marker):
                open(marker, "w").close()
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
                os.kill(os.getpid(), 9)
            return [os.path.basename(path) for path in mini_batch]
    """
    folder = make(script, retry=RetrySpec(timeout=20, task_overhead_timeout=0))
    began = time.monotonic()
    assert runner.run(folder) is Reason.COMPLETED
    assert time.monotonic() - began < 15
    assert predictions(folder) == expected(6)
    progress = json.loads((folder / "progress.json").read_bytes())
    assert (progress["worker_losses"], progress["timeouts"]) == (1, 0)


def test_lost_workers_are_still_told_of_when_the_runner_was_killed_and_the_run_resumed(make: Make) -> None:
    script = """
        import os, time
        from pathlib import Path
        def run(mini_batch):
            lost = Path(mini_batch[0]).parent.parent / "lost"
            lost.mkdir(exist_ok=True)
            before = len(list(lost.iterdir()))
            if before < 2:
                (lost / str(before)).touch()
                os._exit(3)
            if before == 2:
                (lost / "hangs").touch()
                time.sleep(60)
            time.sleep(0.05)
            return [os.path.basename(path) for path in mini_batch]
    """
    folder = make(script, files=40, per_mini_batch=1, retry=RetrySpec(timeout=1, task_overhead_timeout=0))
    process = start(folder)
    wait_for(lambda: len(Ledger.read(folder)) >= 1)
    process.kill()
    process.wait()
    assert start(folder).wait(30) == 0
    assert outcome(folder)["reason"] == "completed"
    told = json.loads((folder / "progress.json").read_bytes())
    assert (told["worker_losses"], told["timeouts"], told["ok"]) == (2, 1, 40)


def test_a_runner_told_to_stop_leaves_the_run_resumable(make: Make) -> None:
    script = """
        import os, time
        def run(mini_batch):
            time.sleep(0.05)
            return [os.path.basename(path) for path in mini_batch]
    """
    folder = make(script, files=20, per_mini_batch=1)
    process = start(folder)
    wait_for(lambda: len(Ledger.read(folder)) >= 2)
    process.terminate()
    assert process.wait(10) == 75
    assert not (folder / "outcome.json").exists()
    assert runner.run(folder) is Reason.COMPLETED
    assert predictions(folder) == expected(20)


def test_two_runners_never_work_in_one_folder(make: Make) -> None:
    folder = make("import time\ndef run(mini_batch):\n    time.sleep(60)\n    return mini_batch\n")
    process = start(folder)
    wait_for((folder / "progress.json").exists)
    with pytest.raises(ConflictError):
        runner.run(folder)
    process.terminate()
    assert process.wait(10) == 75


def test_failed_files_are_scored_again_and_merged_into_the_same_output(make: Make, tmp_path: Path) -> None:
    script = """
        import os
        def run(mini_batch):
            if any(path.endswith("0003.txt") for path in mini_batch) and not os.path.exists({marker!r}):
                raise ValueError("not yet")
            with open({marker!r} + ".log", "a") as log:
                log.write(" ".join(map(os.path.basename, mini_batch)) + "\\n")
            return [os.path.basename(path) for path in mini_batch]
    """
    script = textwrap.dedent(script).format(marker=str(tmp_path / "marker"))
    first = make(script, per_mini_batch=3, retry=RetrySpec(max_retries=0))
    assert runner.run(first) is Reason.COMPLETED
    assert predictions(first) == expected(6, without=(3,))
    (tmp_path / "marker").touch()
    (tmp_path / "marker.log").unlink()
    second = make(script, per_mini_batch=3, name="again", retry_of=str(first))
    assert runner.run(second) is Reason.COMPLETED
    assert predictions(second) == expected(6)
    assert (tmp_path / "marker.log").read_text() == "0003.txt\n"


def test_a_retry_of_a_canceled_retry_scores_only_what_failed_in_the_first(make: Make, tmp_path: Path) -> None:
    script = """
        import os
        def run(mini_batch):
            if any(path.endswith("0003.txt") for path in mini_batch) and not os.path.exists({marker!r}):
                raise ValueError("not yet")
            with open({marker!r} + ".log", "a") as log:
                log.write(" ".join(map(os.path.basename, mini_batch)) + "\\n")
            return [os.path.basename(path) for path in mini_batch]
    """
    script = textwrap.dedent(script).format(marker=str(tmp_path / "marker"))
    first = make(script, per_mini_batch=3, retry=RetrySpec(max_retries=0))
    assert runner.run(first) is Reason.COMPLETED
    (tmp_path / "marker.log").unlink()
    canceled = make(script, per_mini_batch=3, name="canceled", retry_of=str(first))
    (canceled / "cancel").touch()
    assert runner.run(canceled) is Reason.CANCELED_BY_USER
    (tmp_path / "marker").touch()
    third = make(script, per_mini_batch=3, name="third", retry_of=str(canceled))
    assert runner.run(third) is Reason.COMPLETED
    assert predictions(third) == expected(6)
    assert (tmp_path / "marker.log").read_text() == "0003.txt\n"


def test_a_shared_fork_server_serves_two_runs_and_ends_when_idle(make: Make, tmp_path: Path) -> None:
    shared = tmp_path / ("a-rather-long-name-" * 6) / "fork-server"
    shared.parent.mkdir()
    settings: dict[str, Any] = {"fork_server": str(shared), "fork_server_idle_seconds": 0.5}
    first, second = make(NAMES, name="one", **settings), make(NAMES, name="two", **settings)
    assert runner.run(first) is Reason.COMPLETED
    (server,) = processes_in(shared)
    assert runner.run(second) is Reason.COMPLETED
    assert processes_in(shared) == [server]
    assert (shared / "socket").stat().st_mode & 0o777 == 0o600
    wait_for(lambda: not processes_in(shared))
    assert not (shared / "socket").exists()


def test_a_shared_fork_server_has_the_packages_of_the_last_run_ready_for_the_next(make: Make, tmp_path: Path) -> None:
    script = """
        import random, sys
        early = "yaml" in sys.modules
        import numpy, yaml
        def run(mini_batch):
            return [f"{early} {numpy.random.random()}" for _ in mini_batch]
    """
    settings: dict[str, Any] = {"fork_server": str(tmp_path / "shared"), "fork_server_idle_seconds": 1.0}
    cold = make(script, name="cold", **settings)
    warm = make(script, name="warm", **settings, processes_per_instance=2)
    assert runner.run(cold) is Reason.COMPLETED
    assert runner.run(warm) is Reason.COMPLETED
    assert "False" in predictions(cold)
    assert "False" not in predictions(warm)
    drawn = [line.split()[-1] for line in predictions(warm).splitlines()[1:]]
    assert len(set(drawn)) == len(drawn), "forks of one parent draw different random numbers"


def test_to_look_for_a_fork_server_leaves_nothing_open(tmp_path: Path) -> None:
    far = tmp_path / ("a-rather-long-name-" * 6)
    far.mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        assert fork_server_access.connected(far) is None
        assert fork_server_access.connected(far / "not there") is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_new_fork_server_has_the_packages_of_the_last_one_ready(make: Make, tmp_path: Path) -> None:
    script = """
        import sys
        early = "yaml" in sys.modules
        import yaml
        def run(mini_batch):
            return [early for _ in mini_batch]
    """
    shared = tmp_path / "shared"
    settings: dict[str, Any] = {"fork_server": str(shared), "fork_server_idle_seconds": 0.0}
    first, later = make(script, name="first", **settings), make(script, name="later", **settings)
    assert runner.run(first) is Reason.COMPLETED
    wait_for(lambda: not processes_in(shared))
    assert runner.run(later) is Reason.COMPLETED
    assert "False" in predictions(first)
    assert "False" not in predictions(later)


def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """Make a package that looks as if it were installed beside the others."""
    packages = tmp_path / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", str(packages))


@pytest.mark.parametrize("idle", [0.0, 1.0])
def test_a_package_that_reads_the_deployments_variables_finds_them_when_it_is_imported_ahead(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idle: float
) -> None:
    installed(tmp_path, monkeypatch, "with_mode", 'import os\nMODE = os.environ.get("MODE", "none")\n')
    script = """
        import sys
        early = "with_mode" in sys.modules
        import with_mode
        def run(mini_batch):
            return [f"{early} {with_mode.MODE}" for _ in mini_batch]
    """
    shared = tmp_path / "shared"
    settings: dict[str, Any] = {"fork_server": str(shared), "fork_server_idle_seconds": idle}
    settings["environment_variables"] = {"MODE": "mine"}
    first, later = make(script, name="first", **settings), make(script, name="later", **settings)
    assert runner.run(first) is Reason.COMPLETED
    wait_for(lambda: idle or not processes_in(shared))
    assert runner.run(later) is Reason.COMPLETED
    assert predictions(first).count(",False mine\n") == 6
    assert predictions(later).count(",True mine\n") == 6


@pytest.mark.parametrize("end", ["sys.exit('no worker')", "os._exit(3)"])
def test_a_package_that_ends_the_process_that_imports_it_ahead_costs_no_later_run(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    in_no_worker = f'import os, sys\nif "AZUREML_RUN_ID" not in os.environ:\n    {end}\n'
    installed(tmp_path, monkeypatch, "picky", in_no_worker)
    script = """
        import picky
        def run(mini_batch):
            return [1 for _ in mini_batch]
    """
    shared = tmp_path / "shared"
    settings: dict[str, Any] = {"fork_server": str(shared), "fork_server_idle_seconds": 0.0}
    for name in ("first", "later", "last"):
        assert runner.run(make(script, name=name, processes_per_instance=2, **settings)) is Reason.COMPLETED
        wait_for(lambda: not processes_in(shared))


def test_a_fork_server_that_is_killed_is_replaced_and_nothing_is_lost(make: Make, tmp_path: Path) -> None:
    script = """
        import os, time
        def run(mini_batch):
            time.sleep(0.05)
            return [os.path.basename(path) for path in mini_batch]
    """
    folder = make(script, files=20, per_mini_batch=1)
    process = start(folder)
    wait_for(lambda: len(Ledger.read(folder)) >= 2)
    servers = [pid for pid in processes_in(folder / "fork_server") if folder not in cwd_of(pid).parents]
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    assert process.wait(30) == 0
    assert servers
    assert outcome(folder)["reason"] == "completed"
    assert predictions(folder) == expected(20)


def cwd_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/cwd").readlink()
