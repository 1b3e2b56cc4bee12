"""Environments that are really built, with a package of our own: nothing is downloaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from batchpoint.background import environments
from batchpoint.background.environments import Environments
from batchpoint.background.service import Background
from batchpoint.client.jobs import event_line
from batchpoint.entities.assets import Environment
from batchpoint.entities.pipeline_deployments import CommandJob
from batchpoint.errors import EnvironmentBuildError
from batchpoint.server.api.job_events import JobEvents
from batchpoint.server.context import Context
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.served import FAKE_RUNNER, eventually


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of the package ``greeting``, written by hand: a zip file with three members."""
    path = tmp_path / "greeting-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("greeting.py", "WORD = 'hello'\n")
        archive.writestr("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        archive.writestr(
            "greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(
            "greeting-1.0.dist-info/RECORD",
            "greeting.py,,\ngreeting-1.0.dist-info/METADATA,,\ngreeting-1.0.dist-info/WHEEL,,\n"
            "greeting-1.0.dist-info/RECORD,,\n",
        )
    return path


def test_an_environment_is_built_once_for_two_jobs_at_the_same_time(tmp_path: Path, wheel: Path) -> None:
    environment = Environment(name="greeter", pip_requirements=[f"greeting @ {wheel.as_uri()}"])
    environments = Environments(tmp_path / "home")
    pythons: list[str] = []
    threads = [
        threading.Thread(target=lambda: pythons.append(environments.for_environment(environment).python))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pythons) == 2
    assert pythons[0] == pythons[1]
    said = subprocess.run(
        [pythons[0], "-c", "import greeting; print(greeting.WORD)"], check=True, capture_output=True, text=True
    )
    assert said.stdout == "hello\n"
    marker = Path(pythons[0]).parent.parent / "complete.json"
    built_at = marker.stat().st_mtime_ns
    again = Environments(tmp_path / "home").for_environment(environment.model_copy(update={"name": "renamed"}))
    assert again.python == pythons[0]
    assert marker.stat().st_mtime_ns == built_at


@pytest.mark.parametrize("left", ["", '{"requirements": [', "[]"])
def test_an_environment_whose_completion_was_cut_off_is_built_again(tmp_path: Path, wheel: Path, left: str) -> None:
    greeter = Environment(name="greeter", pip_requirements=[f"greeting @ {wheel.as_uri()}"])
    python = Path(Environments(tmp_path / "home").for_environment(greeter).python)
    marker = python.parent.parent / "complete.json"
    whole = marker.read_text()
    marker.write_text(left)
    assert Environments(tmp_path / "home").for_environment(greeter).python == str(python)
    assert marker.read_text() == whole


def test_a_server_that_is_killed_while_it_notes_the_completion_leaves_none(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text = Path.write_text

    def killed(path: Path, text: str) -> int:
        if path.name.startswith("complete.json"):
            write_text(path, text[:10])
            raise KeyboardInterrupt
        return write_text(path, text)

    monkeypatch.setattr(Path, "write_text", killed)
    greeter = Environment(name="greeter", pip_requirements=[f"greeting @ {wheel.as_uri()}"])
    with pytest.raises(KeyboardInterrupt):
        Environments(tmp_path / "home").for_environment(greeter)
    assert not list((tmp_path / "home" / "environments").glob("*/complete.json"))


def test_a_build_that_fails_quotes_uv_and_names_its_log(tmp_path: Path) -> None:
    missing = (tmp_path / "nothing-1.0-py3-none-any.whl").as_uri()
    environment = Environment(name="hopeless", pip_requirements=[f"nothing @ {missing}"])
    environments = Environments(tmp_path / "home")
    with pytest.raises(EnvironmentBuildError) as caught:
        environments.for_environment(environment)
    assert "hopeless" in caught.value.message
    assert "nothing" in caught.value.message
    assert Path(caught.value.details["log"]).is_file()


SLOW_UV = """#!{shell}
if [ "$1" = pip ]; then
    echo "Downloading torch (800.0MiB)"
    while [ ! -e {go} ]; do sleep 0.05; done
fi
exec {uv} "$@"
"""


def test_a_job_says_how_the_environment_is_built_that_it_waits_for(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, uv = tmp_path / "go", tmp_path / "uv"
    uv.write_text(SLOW_UV.format(shell=shutil.which("sh"), go=go, uv=environments._find_uv()))
    uv.chmod(0o755)
    monkeypatch.setattr(environments, "_find_uv", lambda: str(uv))
    told = "environment greeter, which is being built: Downloading torch (800.0MiB)"
    with Workspace.open(Settings(home=tmp_path / "home", default_compute_instances=2)) as workspace:
        greeter = Environment(name="greeter", version="1", pip_requirements=[f"greeting @ {wheel.as_uri()}"])
        workspace.assets.create_or_update("environment", greeter)
        command = {"type": "command", "command": "true", "environment": "azureml:greeter:1"}
        background = Background(workspace, runner_parent=FAKE_RUNNER)
        background.start()
        try:
            begun = [workspace.pipelines.submit(CommandJob.model_validate(command).as_pipeline()) for _ in range(2)]

            def waits() -> list[str | None]:
                """What the commands wait for: the second for the build of the first."""
                return [step.waiting_for for job in begun for step in workspace.jobs.list(parent=job.name)]

            eventually(lambda: waits() == [told, told], seconds=30)
            shared = Context(workspace, background, server_id="s", shares_files=True)
            lines = events_of(JobEvents(shared, begun[0].name), until="torch")
            assert lines[-1].partition(": ")[2] == f"preparing (waiting for {told})"
            go.touch()
            eventually(lambda: waits() == [None, None], seconds=60)
        finally:
            go.touch()
            background.stop()


def test_a_build_that_nobody_waits_for_any_longer_is_ended(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is free then: what runs on would write into what the next one builds."""
    go, uv, running = tmp_path / "go", tmp_path / "uv", tmp_path / "running"
    slow = SLOW_UV.format(shell=shutil.which("sh"), go=go, uv=environments._find_uv())
    uv.write_text(slow.replace("    echo", f"    echo $$ > {running}\n    echo", 1))
    uv.chmod(0o755)
    monkeypatch.setattr(environments, "_find_uv", lambda: str(uv))

    def told(line: str) -> None:
        if "Downloading" in line:
            raise KeyboardInterrupt

    greeter = Environment(name="greeter", pip_requirements=[f"greeting @ {wheel.as_uri()}"])
    with pytest.raises(KeyboardInterrupt):
        Environments(tmp_path / "home").for_environment(greeter, tell=told)
    try:
        with pytest.raises(ProcessLookupError):
            os.kill(int(running.read_text()), 0)
    finally:
        go.touch()


def events_of(events: JobEvents, *, until: str) -> list[str]:
    """What a watcher is told, as lines, as far as a line that holds this word."""
    lines: list[str] = []
    for event in events.events():
        kind, _, data = event.removeprefix("event: ").partition("\ndata: ")
        line = event_line(kind, json.loads(data)) if data else None
        lines += [line] if line else []
        if until in "".join(lines):
            break
    return lines


def conda(python: str) -> Environment:
    return Environment(name="old", conda_file={"dependencies": [f"python={python}"]})


def test_a_patch_of_python_that_is_not_to_be_had_gives_way_to_another_of_the_same_minor_version(tmp_path: Path) -> None:
    major, minor = sys.version_info[:2]
    environments = Environments(tmp_path / "home")
    told = f"Python {major}.{minor}.99 is not to be had, so another {major}.{minor} was taken"
    for _ in range(2):  # built, and found built
        interpreter = environments.for_environment(conda(f"{major}.{minor}.99"))
        assert [notice.partition(":")[0] for notice in interpreter.notices] == [told]
    asked = [interpreter.python, "-c", "import platform; print(platform.python_version())"]
    version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    assert interpreter.notices == (f"{told}: {version}.",)
    assert version.startswith(f"{major}.{minor}.")
    (log,) = (tmp_path / "home" / "environments").glob("*.log")
    assert f"{told}: {version}.\n" in log.read_text()


def test_a_python_of_which_no_patch_is_to_be_had_is_told_with_what_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match=r"3\.99\.1"):
        Environments(tmp_path / "home").for_environment(conda("3.99.1"))
