"""Champion and challenger in real processes: whatever the challenger does, the champion's predictions stay the same."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchpoint.entities.jobs import Reason
from batchpoint.scoring import runner
from batchpoint.scoring.challenge import Challenge
from batchpoint.scoring.ledger import Ledger
from batchpoint.scoring.spec import (
    ChallengerSpec,
    InputSpec,
    Location,
    OutputSpec,
    RetrySpec,
    ScoringSpec,
    ScriptSpec,
    SplitSpec,
)

Make = Callable[..., Path]

CHAMPION = """
    import os
    import helper
    def init():
        global rate
        rate = helper.RATE
    def run(rows):
        result = rows["n"] * rate
        rows["n"] = -1
        return result
"""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the folder of a run over 60 numbered rows in two files; ``challenger=None`` leaves the challenger out."""

    def script(folder: Path, text: str, rate: int) -> ScriptSpec:
        folder.mkdir()
        (folder / "score.py").write_text(textwrap.dedent(text))
        (folder / "helper.py").write_text(f"RATE = {rate}\n")
        return ScriptSpec(kind="script", path=str(folder / "score.py"), code_dir=str(folder), takes="dataframe")

    def folder(challenger: str | None, *, name: str = "run", rows: int = 10, **settings: Any) -> Path:
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        for part in range(2):
            lines = "".join(f"{number}\n" for number in range(part * 30, part * 30 + 30))
            (data / f"{part}.csv").write_text(f"n\n{lines}")
        champion = script(tmp_path / f"{name}-champion", settings.pop("champion", CHAMPION), 2)
        timeout, python = settings.pop("timeout", 30.0), settings.pop("python", sys.executable)
        other = script(tmp_path / f"{name}-challenger", challenger, 3) if challenger else None
        run = tmp_path / name
        run.mkdir()
        spec = ScoringSpec(
            job=name,
            python=sys.executable,
            script=champion,
            environment_variables={"WHO": "champion"},
            input=InputSpec(locations=[Location(url=f"{data}/")]),
            split=SplitSpec(by="rows", rows=rows),
            retry=RetrySpec(task_overhead_timeout=0.0, **settings.pop("retry", {})),
            output=OutputSpec(folder=Location(url=str(tmp_path / f"{name}-out")), **settings.pop("output", {})),
            challenger=ChallengerSpec(
                deployment="green",
                python=python,
                script=other,
                environment_variables={"WHO": "challenger"},
                timeout=timeout,
            )
            if other
            else None,
            **settings,
        )
        spec.write(run)
        return run

    return folder


def outcome(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "outcome.json").read_bytes())
    return found


def published(folder: Path, name: str = "predictions.csv") -> str:
    return (folder.with_name(f"{folder.name}-out") / name).read_text()


def comparison(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(published(folder, "comparison.json"))
    return found


def challenges(folder: Path) -> list[Challenge]:
    records = Ledger.read(folder)
    return [part.challenge for index in sorted(records) for part in records[index].parts if part.challenge]


def expected(rate: int) -> str:
    rows = [f"{part}.csv,{row},{(part * 30 + row) * rate}\n" for part in range(2) for row in range(30)]
    return "file,row,n\n" + "".join(rows)


def test_both_score_each_row_with_modules_and_variables_of_their_own(make: Make) -> None:
    script = CHAMPION + (
        "    import os\n"
        "    assert os.environ['WHO'] == 'challenger'\n"
        "    assert 'challenger' in os.environ['AZUREML_BI_OUTPUT_PATH']\n"
    )
    folder = make(script, processes_per_instance=2)
    assert runner.run(folder) is Reason.COMPLETED, outcome(folder)
    assert published(folder) == expected(2)
    assert published(folder, "challenger.csv") == expected(3)
