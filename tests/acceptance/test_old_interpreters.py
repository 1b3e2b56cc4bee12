"""Scripts of older models run under the Python that their environment declares, long after this project left it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from shipped import Shipped

OLDEST = "3.7"
"""What TensorFlow 1 and scikit-learn 0.20 need."""

SCRIPT = """
import sys


def run(mini_batch):
    assert sys.version_info[:2] == (3, 7)
    if isinstance(mini_batch, list):
        return [(open(path).read().count(","), 0.5) for path in mini_batch]
    if (mini_batch["amount"] < 0).any():
        raise ValueError("amount is below zero")
    return mini_batch.assign(double=mini_batch["amount"] * 2)
"""

DEPLOYMENT = """
name: {kind}
endpoint_name: amounts
code_configuration: {{code: ./code, scoring_script: score.py}}
environment: {{name: {kind}, conda_file: {{dependencies: [python={python}, {{pip: [{packages}]}}]}}}}
settings: {{max_concurrency_per_instance: 2, mini_batch_size: 1}}
batchpoint: {{mini_batch_type: {kind}, csv: {{null_values: ["", "-"]}}}}
"""


def interpreter() -> Path | None:
    """The oldest Python that will do, where this machine has one: on the PATH, or below pyenv's folder."""
    found = [shutil.which(f"python{OLDEST}"), *Path.home().glob(f".pyenv/versions/{OLDEST}.*/bin/python{OLDEST}")]
    for path in filter(None, found):
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return Path(path)
    return None


@pytest.fixture
def deployed(shipped: Shipped, tmp_path: Path) -> Path:
    """The folder of two deployments whose environments declare the oldest Python: of paths, and of DataFrames."""
    python = interpreter()
    if python is None:
        pytest.skip(f"no Python {OLDEST} here")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / f"python{OLDEST}").symlink_to(python)
    shipped.variables["PATH"] = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCRIPT)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("id,amount,note\n1,10,x\n2,-5,-\n3,30,y\n")
    (tmp_path / "data" / "b.csv").write_text("id,amount,note\n4,40,\n")
    shipped.ok("endpoint", "create", "-n", "amounts")
    for kind, packages in (("paths", ""), ("dataframe", "pandas")):
        (tmp_path / f"{kind}.yml").write_text(DEPLOYMENT.format(kind=kind, python=OLDEST, packages=packages))
        shipped.ok("deployment", "create", "-f", tmp_path / f"{kind}.yml")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "receipt", "rows"),
    [
        ("paths", "2 files = 2 ok + 0 failed", ["prediction_0,prediction_1", "8,0.5", "4,0.5"]),
        ("dataframe", "4 rows = 3 ok + 1 failed", ["id,amount,note,double", "1,10,x,20", "3,30,y,60", "4,40,,80"]),
    ],
)
def test_files_and_rows_are_scored_under_the_oldest_python(
    shipped: Shipped, deployed: Path, kind: str, receipt: str, rows: list[str]
) -> None:
    asked = ["--name", "amounts", "--deployment-name", kind, "--input", deployed / "data", "--job-name", kind]
    done = shipped.run("endpoint", "invoke", *asked, "--stream")
    assert done.returncode == 0, done.stderr
    assert receipt in done.stderr
    lines = (shipped.output(kind) / "predictions.csv").read_text().splitlines()
    keys = 1 if kind == "paths" else 2  # the file, and the row of rows
    assert [",".join(line.split(",")[keys:]) for line in lines] == rows
