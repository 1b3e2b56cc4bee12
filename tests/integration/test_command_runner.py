"""The run of a command with a real shell: only a process can be killed, hang, or leave others behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchpoint.entities.jobs import Reason
from batchpoint.scoring import command_runner, runner
from batchpoint.scoring.command_spec import CommandSpec
from batchpoint.scoring.spec import FetchedInput, Location, StagedOutput
from batchpoint.storage.datastores import Stores
from integration.served import eventually

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the folder of a run: a command, its code, and outputs that it may write."""

    def folder(command: str, *, outputs: tuple[str, ...] = (), code: dict[str, str] | None = None, **more: Any) -> Path:
        source, run = tmp_path / "code", tmp_path / "run"
        for path in (source, run):
            path.mkdir()
        for name, text in (code or {}).items():
            (source / name).write_text(text)
        staged = [staged_output(tmp_path, name) for name in outputs]
        spec = CommandSpec(
            job="step-1",
            command=command,
            bin_folder=str(Path(sys.executable).parent),
            code_dir=str(source),
            staged_outputs=[*staged, *more.pop("staged_outputs", [])],
            **more,
        )
        spec.write(run)
        return run

    return folder


def staged_output(root: Path, name: str, **more: Any) -> StagedOutput:
    """A folder; or a file, when its name has an ending."""
    path, final = root / "run" / "step_outputs" / Path(name).stem, root / "out" / Path(name).stem
    is_file = "." in name
    return StagedOutput(
        name=Path(name).stem,
        path=str(path / name if is_file else path),
        folder=Location(url=f"{final}/"),
        file_name=name if is_file else None,
        **more,
    )


def outcome(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "outcome.json").read_bytes())
    return found


def log(folder: Path) -> str:
    return (folder / "logs/user/std_log.txt").read_text()


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


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_command_writes_a_folder_and_a_file_that_appear_when_it_has_ended(make: Make, tmp_path: Path) -> None:
    folder = make(
        f"mkdir {tmp_path}/run/step_outputs/table/k=1 && echo 1 > {tmp_path}/run/step_outputs/table/k=1/part"
        f" && test ! -e {tmp_path}/out && python -c 'print(\"hello\")' > {tmp_path}/run/step_outputs/words/words.txt",
        outputs=("table", "words.txt"),
    )
    assert runner.run(folder) is Reason.COMPLETED
    assert outcome(folder)["outputs"] == {
        "table": {"uri": f"{tmp_path}/out/table", "folder": f"{tmp_path}/out/table", "files": ["k=1/part"]},
        "words": {
            "uri": f"{tmp_path}/out/words/words.txt", "folder": f"{tmp_path}/out/words", "files": ["words.txt"],
        },
    }  # fmt: skip
    assert (tmp_path / "out/table/k=1/part").read_text() == "1\n"
    assert (tmp_path / "out/words/words.txt").read_text() == "hello\n"
    assert not list((tmp_path / "out").glob(".*")), "nothing else is left there"
    assert runner.run(folder) is Reason.COMPLETED, "what is over is over"


def test_a_command_that_fails_publishes_nothing_and_its_traceback_is_in_the_error(make: Make, tmp_path: Path) -> None:
    script = "import sys\nprint('reading')\nraise KeyError('customer_id')\n"
    command = f"echo half > {tmp_path}/run/step_outputs/table/part; python prepare.py"
    folder = make(command, outputs=("table",), code={"prepare.py": script})
    assert runner.run(folder) is Reason.COMMAND_FAILED
    error = outcome(folder)["error"]
    assert error["message"] == "The command ended with exit code 1. Its last words: KeyError: 'customer_id'"
    assert error["exception"] == "KeyError"
    assert 'prepare.py", line 3' in error["traceback"]
    assert log(folder).startswith("reading\nTraceback")
    assert not (tmp_path / "out").exists()


def test_a_command_that_only_leaves_with_a_status_is_told_with_its_last_lines(make: Make) -> None:
    folder = make("echo one; echo 'no room: giving up' >&2; exit 3")
    assert runner.run(folder) is Reason.COMMAND_FAILED
    error = outcome(folder)["error"]
    assert error["message"] == "The command ended with exit code 3. Its last words: no room: giving up"
    assert (error["code"], error["exception"], error["traceback"]) == (
        "command_failed", None, "one\nno room: giving up",
    )  # fmt: skip


def test_the_registered_code_is_never_changed_by_a_run(make: Make, tmp_path: Path) -> None:
    code = {"helper.py": "x = 1\n", "main.py": "import helper\nopen('scratch', 'w').write('s')\n"}
    folder = make("echo 'x = 2' >> helper.py && python main.py && rm main.py", code=code)
    assert runner.run(folder) is Reason.COMPLETED, outcome(folder)
    assert {path.name: path.read_text() for path in (tmp_path / "code").iterdir()} == code


def test_a_command_sees_the_variables_of_azure_and_its_own(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_MODEL_DIR", "/of/another")
    folder = make(
        'echo "$AZUREML_RUN_ID $AZUREML_NODE_COUNT [$AZUREML_MODEL_DIR] $MINE"; which python',
        environment_variables={"MINE": "a b"},
    )
    assert runner.run(folder) is Reason.COMPLETED
    assert log(folder).splitlines() == ["step-1 1 [] a b", str(Path(sys.executable).parent / "python")]


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(make: Make, tmp_path: Path) -> None:
    folder = make("sleep 60 & echo $! > other; sleep 60", timeout=0.3, outputs=("table",))
    assert runner.run(folder) is Reason.COMMAND_FAILED
    assert "did not end within 0.3 seconds" in outcome(folder)["error"]["message"]
    assert not (tmp_path / "out").exists()


def test_a_process_that_a_command_leaves_behind_is_ended_with_it(make: Make, tmp_path: Path) -> None:
    folder = make(f"sleep 60 & echo $! > {tmp_path}/other")
    assert runner.run(folder) is Reason.COMPLETED
    eventually(lambda: not lives(int((tmp_path / "other").read_text())))


def test_a_cancel_ends_a_command_that_will_not_hear(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_runner, "GRACE_SECONDS", 0.2)
    folder = make(f"trap 'echo asked' TERM; touch {tmp_path}/go; while true; do sleep 0.05; done", outputs=("table",))
    runs = threading.Thread(target=runner.run, args=(folder,))
    runs.start()
    eventually((tmp_path / "go").exists)
    (folder / "cancel").touch()
    runs.join(10)
    assert outcome(folder)["reason"] == "canceled_by_user"
    assert "asked" in log(folder)
    assert not (tmp_path / "out").exists()


def test_what_a_command_prints_can_be_read_while_it_runs(make: Make, tmp_path: Path) -> None:
    script = f"import os, time\nprint('begun')\nwhile not os.path.exists('{tmp_path}/go'): time.sleep(0.01)\n"
    folder = make("python main.py", code={"main.py": script})
    runs = threading.Thread(target=runner.run, args=(folder,))
    runs.start()
    eventually(lambda: (folder / "logs/user/std_log.txt").exists() and log(folder) == "begun\n")
    assert json.loads((folder / "progress.json").read_bytes())["phase"] == "running"
    (tmp_path / "go").touch()
    runs.join(10)
    assert outcome(folder)["reason"] == "completed"


def test_a_command_whose_runner_is_killed_is_run_again_from_scratch_and_alone(make: Make, tmp_path: Path) -> None:
    staged = tmp_path / "run/step_outputs/table"
    folder = make(
        f"echo $$ >> {tmp_path}/pids; test ! -e {tmp_path}/second && touch {staged}/half && sleep 60;"
        f" echo whole > {staged}/part",
        outputs=("table",),
    )
    first = start(folder)
    eventually((staged / "half").exists)
    first.kill()
    first.wait()
    orphan = int((tmp_path / "pids").read_text())
    assert lives(orphan), "nobody was there to end it"
    (tmp_path / "second").touch()
    assert runner.run(folder) is Reason.COMPLETED
    assert not lives(orphan)
    assert [path.name for path in (tmp_path / "out/table").iterdir()] == ["part"]


def test_a_runner_killed_while_it_publishes_completes_that_without_the_command(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "run/step_outputs"
    folder = make(f"echo run >> {tmp_path}/runs; echo 1 > {root}/one/a; echo 2 > {root}/two/b", outputs=("one", "two"))
    place = command_runner.publish_outputs

    def cut_off(job: str, outputs: list[StagedOutput], *rest: Any) -> Any:
        place(job, outputs[:1], *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(command_runner, "publish_outputs", cut_off)
    with pytest.raises(KeyboardInterrupt):
        runner.run(folder)
    assert (tmp_path / "out/one/a").exists()
    assert not (tmp_path / "out/two").exists()
    monkeypatch.undo()
    assert runner.run(folder) is Reason.COMPLETED
    assert (tmp_path / "out/two/b").read_text() == "2\n"
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_runner_that_is_told_to_stop_leaves_no_outcome_and_the_next_one_goes_on(make: Make, tmp_path: Path) -> None:
    folder = make(f"test -e {tmp_path}/second || {{ touch {tmp_path}/second; sleep 60; }}")
    first = start(folder)
    eventually((tmp_path / "second").exists)
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 75
    assert not (folder / "outcome.json").exists()
    assert runner.run(folder) is Reason.COMPLETED


def test_an_output_is_never_written_over_what_lies_there_and_that_is_said_before_the_command(
    make: Make, tmp_path: Path
) -> None:
    (tmp_path / "out/table").mkdir(parents=True)
    (tmp_path / "out/table/theirs").write_text("theirs")
    folder = make(f"touch {tmp_path}/ran", outputs=("table",))
    assert runner.run(folder) is Reason.OUTPUT_FAILED
    assert "exists already" in outcome(folder)["error"]["message"]
    assert not (tmp_path / "ran").exists()


def test_a_place_that_cannot_be_written_is_named_before_the_command_is_run(make: Make, tmp_path: Path) -> None:
    staged = StagedOutput(
        name="table", path=str(tmp_path / "run/step_outputs/table"), folder=Location(url="https://example.org/table/")
    )
    folder = make(f"touch {tmp_path}/ran", staged_outputs=[staged])
    assert runner.run(folder) is Reason.OUTPUT_FAILED
    assert "The output table cannot be written to https://example.org/table/" in outcome(folder)["error"]["message"]
    assert not (tmp_path / "ran").exists()


def test_an_output_in_another_store_has_the_same_files(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "run/step_outputs/table"
    staged = StagedOutput(name="table", path=str(path), folder=Location(url="memory://published/table/"))
    folder = make(f"mkdir {path}/k=1 && echo 1 > {path}/k=1/part", staged_outputs=[staged])
    assert runner.run(folder) is Reason.COMPLETED, outcome(folder)
    with Stores().open_read("memory://published/table/k=1/part") as file:
        assert file.read() == b"1\n"


def test_an_output_may_be_overwritten_when_that_was_said(make: Make, tmp_path: Path) -> None:
    (tmp_path / "out/words").mkdir(parents=True)
    (tmp_path / "out/words/words.txt").write_text("old")
    staged = staged_output(tmp_path, "words.txt", if_exists="overwrite", owns_folder=False)
    folder = make(f"echo new > {staged.path}", staged_outputs=[staged])
    assert runner.run(folder) is Reason.COMPLETED
    assert (tmp_path / "out/words/words.txt").read_text() == "new\n"


def test_a_file_that_was_not_written_fails_the_step_and_is_named(make: Make) -> None:
    folder = make("true", outputs=("words.txt",))
    assert runner.run(folder) is Reason.OUTPUT_FAILED
    assert "${{outputs.words}} stands for the path of a file" in outcome(folder)["error"]["message"]


def test_data_that_lies_elsewhere_is_fetched_once(make: Make, tmp_path: Path) -> None:
    stores = Stores()
    for name in ("a.txt", "deep/b.txt"):
        stores.write_bytes(f"memory://fetched-once/{name}", name.encode())
    target = tmp_path / "run/inputs/step/data"
    wanted = FetchedInput(location=Location(url="memory://fetched-once"), path=str(target))
    folder = make(f"cat {target}/a.txt {target}/deep/b.txt", fetched_inputs=[wanted])
    assert runner.run(folder) is Reason.COMPLETED, outcome(folder)
    assert log(folder) == "a.txtdeep/b.txt"
