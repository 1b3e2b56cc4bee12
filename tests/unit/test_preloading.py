"""What a fork server imports before it forks its first workers."""

from __future__ import annotations

from pathlib import Path

from batchpoint.scoring.preloading import LEARNT, forget, learnable, modules_of_script, remember, remembered

SCRIPT = """
import os
import numpy as np, joblib
import torch
import pandas_helpers
from sklearn.svm import OneClassSVM
from . import scipy
raise SystemExit("nobody runs this")


def run(mini_batch):
    import pandas
"""


def test_only_known_packages_that_a_script_imports_at_its_top_are_preloaded(tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text(SCRIPT)
    assert modules_of_script(script) == ["numpy", "joblib", "sklearn.svm"]


def test_a_module_beside_the_script_hides_the_package_of_its_name(tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text(SCRIPT)
    (tmp_path / "joblib.py").touch()
    (tmp_path / "sklearn").mkdir()
    assert modules_of_script(script) == ["numpy"]


def test_a_script_that_cannot_be_read_preloads_nothing(tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    assert modules_of_script(script) == []
    script.write_text("import pandas\ndef run(:\n")
    assert modules_of_script(script) == []


def test_what_workers_imported_is_remembered_in_order_and_added_to(tmp_path: Path) -> None:
    assert remembered(tmp_path) == []
    remember(tmp_path, ["numpy", "sklearn.svm"])
    remember(tmp_path, ["numpy", "yaml"])
    assert remembered(tmp_path) == ["numpy", "sklearn.svm", "yaml"]
    assert [path.name for path in tmp_path.iterdir()] == [LEARNT]


def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    for text in ("", "[", "[" * 100_000, '{"numpy": 1}', "[1, null]"):
        (tmp_path / LEARNT).write_text(text)
        assert remembered(tmp_path) == []


def test_what_made_a_fork_server_end_is_forgotten(tmp_path: Path) -> None:
    forget(tmp_path)
    remember(tmp_path, ["numpy"])
    forget(tmp_path)
    assert remembered(tmp_path) == []


def test_a_package_that_may_have_imported_one_that_bears_no_fork_is_not_learnt() -> None:
    assert learnable(["yaml", "keras", "numpy.linalg"]) == ["yaml", "keras", "numpy.linalg"]
    assert learnable(["yaml", "keras", "tensorflow.python", "numpy.linalg"]) == ["numpy.linalg"]
