"""Environments that are really built, with a package of our own: nothing is downloaded."""

from __future__ import annotations

import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

from batchpoint.background.environments import Environments
from batchpoint.entities.assets import Environment
from batchpoint.errors import EnvironmentBuildError


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


def test_a_build_that_fails_quotes_uv_and_names_its_log(tmp_path: Path) -> None:
    missing = (tmp_path / "nothing-1.0-py3-none-any.whl").as_uri()
    environment = Environment(name="hopeless", pip_requirements=[f"nothing @ {missing}"])
    environments = Environments(tmp_path / "home")
    with pytest.raises(EnvironmentBuildError) as caught:
        environments.for_environment(environment)
    assert "hopeless" in caught.value.message
    assert "nothing" in caught.value.message
    assert Path(caught.value.details["log"]).is_file()
