"""What an environment asks for, and when the server's own interpreter will do."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from batchpoint.background.environments import (
    Environments,
    Packages,
    declared_packages,
    environment_key,
    packages_of_conda,
    packages_of_mlflow_model,
    unmet,
    unmet_closely,
)
from batchpoint.entities.assets import Environment
from batchpoint.errors import EnvironmentBuildError

INSTALLED = {"numpy": "2.1.3", "scikit-learn": "1.5.2", "pandas": "2.2.3"}.get


def test_the_pip_part_and_the_python_of_a_conda_file_are_read() -> None:
    packages = packages_of_conda(
        {
            "channels": ["conda-forge"],
            "dependencies": ["python=3.11", "pip<=23", "conda-forge::numpy=1.26=py311_0", {"pip": ["pandas>=2"]}],
        }
    )
    assert packages.python == "==3.11.*"
    assert packages.requirements == ("numpy==1.26.*", "pandas>=2")
    assert packages.notices == ("The conda packages numpy are taken from PyPI.",)


def test_an_image_alone_is_answered_with_a_notice() -> None:
    packages = declared_packages(Environment(name="curated", image="mcr.example/azureml"))
    assert packages.requirements == ()
    assert "recorded, not run" in packages.notices[0]


def test_an_environment_of_azures_registries_says_how_to_stand_in_for_it() -> None:
    image = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"
    (notice,) = declared_packages(Environment(name="sklearn-1.5", image=image)).notices
    assert "Register an environment of that name" in notice


def test_a_requirement_is_met_by_an_installed_version_in_its_range() -> None:
    packages = Packages(("numpy>=2", "pandas==2.2.3", "torch; python_version < '3'"), "==3.11.*")
    assert unmet(packages, installed=INSTALLED, python="3.11.7") == []


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("scikit-learn=0.22", "scikit-learn==0.22.*"),
        ("scikit-learn=0.22.2.post1", "scikit-learn==0.22.2.post1"),
        ("pandas=2.0.0rc1=py311_0", "pandas==2.0.0rc1"),
    ],
)
def test_a_conda_version_with_a_suffix_is_that_very_one(conda: str, pip: str) -> None:
    (line,) = packages_of_conda({"dependencies": [conda]}).requirements
    assert line == pip
    assert str(Requirement(line)) == pip


@pytest.mark.parametrize("line", ["numpy<2", "torch", "pandas @ https://example.org/p.whl", "-r more.txt"])
def test_what_is_not_installed_as_declared_is_unmet(line: str) -> None:
    assert unmet(Packages((line,)), installed=INSTALLED, python="3.11.7") == [line]


def test_another_python_is_unmet() -> None:
    assert unmet(Packages((), "==3.10.*"), installed=INSTALLED, python="3.11.7") == ["python==3.10.*"]


def test_a_models_pin_is_met_by_another_patch_version_with_a_notice() -> None:
    packages = Packages(("numpy==2.1.0", "scikit-learn==1.4.0", "mlflow==2.18"))
    missing, notices = unmet_closely(packages, installed=INSTALLED, python="3.11.7", ignored=("mlflow",))
    assert missing == ["scikit-learn==1.4.0"]
    assert notices == ["The model was logged with other versions: numpy 2.1.3 instead of ==2.1.0."]


def test_the_packages_of_an_mlflow_model_come_from_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("python: 3.10.4\ndependencies: [-r requirements.txt]\n")
    (tmp_path / "requirements.txt").write_text("mlflow==2.18  # itself\n\n# nothing\nnumpy==2.1.3\n")
    assert packages_of_mlflow_model(tmp_path) == Packages(("mlflow==2.18", "numpy==2.1.3"), "==3.10.*")


def test_a_models_conda_file_counts_before_its_list_of_requirements(tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text("dependencies: [python=3.8.5, pip, {pip: [mlflow, numpy==1.21.0]}]\n")
    (tmp_path / "requirements.txt").write_text("mlflow\nnumpy==1.24.4\n")
    assert packages_of_mlflow_model(tmp_path) == Packages(("mlflow", "numpy==1.21.0"), "==3.8.*")


def test_the_key_depends_on_content_not_on_order() -> None:
    assert environment_key(["a==1", "b==2"], None) == environment_key(["b==2", "a==1"], None)
    assert environment_key(["a==1"], None) != environment_key(["a==2"], None)


def test_the_servers_own_interpreter_serves_when_it_satisfies_the_declaration(tmp_path: Path) -> None:
    environments = Environments(tmp_path, python="/own/python")
    environment = Environment(name="plain", pip_requirements=["packaging", "pyyaml>=6"])
    assert environments.for_environment(environment).python == "/own/python"
    assert environments.default().python == "/own/python"


def test_an_unreadable_conda_file_says_which_environment_it_is_of(tmp_path: Path) -> None:
    environment = Environment(name="broken", conda_file=str(tmp_path / "none.yml"))
    with pytest.raises(EnvironmentBuildError, match="broken"):
        Environments(tmp_path).for_environment(environment)
