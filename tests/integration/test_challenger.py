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
    (column,) = comparison(folder)["columns"]
    assert (column["name"], column["relative"]["median"]) == ("n", 0.5)


def test_predictions_are_byte_equal_with_a_challenger_and_without(make: Make) -> None:
    folders = [
        make("def run(rows):\n    rows['n'] = 0\n    return rows[rows['n'] > 1]", name="with"),
        make(None, name="without"),
    ]
    assert [runner.run(folder) for folder in folders] == [Reason.COMPLETED] * 2
    assert published(folders[0]) == published(folders[1]) == expected(2)
    assert not (folders[1].with_name("without-out") / "comparison.json").exists()
    assert comparison(folders[0])["challenger_failed"] == 60
    assert comparison(folders[0])["agreement_of_all"] == 0


def test_one_bad_row_of_the_challenger_costs_it_that_row_alone(make: Make) -> None:
    script = """
        def run(rows):
            if 41 in rows["n"].tolist():
                raise ValueError("never 41")
            return rows["n"] * 2
    """
    folder = make(script)
    assert runner.run(folder) is Reason.COMPLETED
    assert published(folder) == expected(2)
    assert published(folder, "challenger.csv") == expected(2).replace("1.csv,11,82\n", "")
    found = comparison(folder)
    assert (found["rows_compared"], found["agreement"], found["challenger_failed"]) == (59, 1.0, 1)
    assert found["agreement_of_all"] == pytest.approx(59 / 60)
    (failure,) = found["failures"]
    assert (failure["file"], failure["row"], failure["message"]) == ("1.csv", 11, "never 41")


def test_a_challenger_that_crashes_once_is_started_again(make: Make) -> None:
    script = """
        import os
        def run(rows):
            if 25 in rows["n"].tolist():
                os._exit(3)
            return rows["n"]
    """
    folder = make(script)
    assert runner.run(folder) is Reason.COMPLETED
    assert published(folder) == expected(2)
    found = comparison(folder)
    assert (found["rows_compared"], found["challenger_failed"], found["notices"]) == (50, 10, [])
    assert found["failures"][0]["exception"] == "WorkerLost"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("import os\ndef run(rows):\n    os._exit(3)", "crashed or hung 3 times"),
        ("import time\ndef run(rows):\n    time.sleep(60)", "crashed or hung 3 times"),
        ("def init():\n    raise OSError('no model')\ndef run(rows):\n    pass", "OSError: no model"),
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("def run(rows):\n    raise ValueError('always')", "ValueError: always"),
        ("def run(rows):\n    return 7", "should return a list or a pandas DataFrame"),
    ],
)
def test_a_challenger_that_keeps_failing_is_switched_off_with_a_notice(make: Make, script: str, why: str) -> None:
    folder = make(script, timeout=0.5 if "sleep" in script else 30)
    assert runner.run(folder) is Reason.COMPLETED
    assert published(folder) == expected(2)
    (notice,) = comparison(folder)["notices"]
    assert "switched off" in notice
    assert why in notice
    assert notice in outcome(folder)["notices"]
    assert comparison(folder)["agreement_of_all"] == 0


def test_a_challenger_under_another_interpreter_reads_the_rows_itself(make: Make, tmp_path: Path) -> None:
    python = tmp_path / "other-python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    folder = make(CHAMPION, python=str(python), output={"passthrough": ["n"]})
    assert runner.run(folder) is Reason.COMPLETED, outcome(folder)
    assert published(folder, "challenger.csv") == expected(3)


def test_what_is_committed_of_both_is_kept_when_the_run_is_resumed(make: Make) -> None:
    script = """
        import os, pathlib
        def run(rows):
            flag = pathlib.Path(os.environ["AZUREML_BI_OUTPUT_PATH"], "killed")
            if 30 in rows["n"].tolist() and not flag.exists():
                flag.touch()
                os.kill(int(os.environ["RUNNER"]), 9)
            return rows["n"] * 3
    """
    folder = make(script)
    child = os.fork()
    if child == 0:
        os.environ["RUNNER"] = str(os.getpid())
        runner.run(folder)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    before = challenges(folder)
    assert len(before) < 6
    assert runner.run(folder) is Reason.COMPLETED
    assert challenges(folder)[: len(before)] == before
    assert published(folder, "challenger.csv") == expected(3)
    assert comparison(folder)["rows_compared"] == 60


def test_a_retry_keeps_what_was_compared_and_asks_for_the_rest(make: Make) -> None:
    champion = CHAMPION.replace("result =", "assert 45 not in rows['n'].tolist()\n        result =")
    first = make(CHAMPION, champion=champion, name="first", retry={"max_retries": 0})
    assert runner.run(first) is Reason.COMPLETED
    assert comparison(first)["champion_failed"] == 1
    again = make(CHAMPION, name="again", retry_of=str(first), output={"if_exists": "overwrite"})
    spec = json.loads((again / "spec.json").read_text())
    spec["output"]["folder"]["url"] = str(first.with_name("first-out"))
    (again / "spec.json").write_text(json.dumps(spec))
    assert runner.run(again) is Reason.COMPLETED, outcome(again)
    assert published(first) == expected(2)
    assert published(first, "challenger.csv") == expected(3)
    assert comparison(first)["rows_compared"] == 60
