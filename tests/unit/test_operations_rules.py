"""The rules of the operations that need no registry: references, overrides, scripts, roles."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from batchpoint.entities.base import Reference
from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.jobs import Overrides, RetryOverrides
from batchpoint.entities.resources import Compute
from batchpoint.entities.tokens import Token
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.deployments import check_script
from batchpoint.operations.invoking import effective_deployment
from batchpoint.operations.places import asset_reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("azureml:churn:3", Reference("churn", "3")),
        ("azureml:churn@latest", Reference("churn", None, "latest")),
        ("churn:3", Reference("churn", "3")),
        ("churn@latest", Reference("churn", None, "latest")),
        ("azureml:churn", Reference("churn")),
        ("azureml://locations/west/workspaces/w/data/churn/versions/3", Reference("churn", "3")),
        ("azureml://locations/west/workspaces/w/data/churn/labels/latest", Reference("churn", None, "latest")),
        ("/subscriptions/s/resourceGroups/g/x/workspaces/w/models/churn/versions/3", Reference("churn", "3")),
        ("azureml://datastores/blobs/paths/a/b.csv", None),
        ("/data/a.csv", None),
        ("https://example.org/a.csv", None),
        ("./relative", None),
    ],
)
def test_assets_are_named_in_every_form_and_places_are_not_taken_for_assets(
    text: str, expected: Reference | None
) -> None:
    assert asset_reference(text) == expected


def test_an_invoke_changes_what_it_names_and_nothing_else() -> None:
    declared = BatchDeployment.model_validate(
        {"name": "blue", "endpoint_name": "churn", "mini_batch_size": 5, "retry_settings": {"timeout": 60}}
    )
    overrides = Overrides(
        mini_batch_size=20, retry_settings=RetryOverrides(max_retries=1), output_format="jsonl", error_threshold=0
    )
    effective, notices = effective_deployment(declared, overrides, Compute(name="cpu"))
    assert notices == []
    assert (effective.settings.mini_batch_size, effective.settings.error_threshold) == (20, 0)
    assert (effective.settings.retry_settings.max_retries, effective.settings.retry_settings.timeout) == (1, 60)
    assert effective.batchpoint.output_format == "jsonl"
    assert declared.settings.mini_batch_size == 5
    unchanged, _ = effective_deployment(declared, Overrides(), Compute(name="cpu"))
    assert unchanged == declared


def test_instances_are_capped_by_the_compute_with_a_notice() -> None:
    declared = BatchDeployment(name="blue", endpoint_name="churn")
    effective, notices = effective_deployment(declared, Overrides(instance_count=9), Compute(name="cpu"))
    assert effective.resources.instance_count == 4
    assert notices == ["Instances were lowered from 9 to 4, the most that compute cpu has."]


@pytest.mark.parametrize(
    "script",
    [
        "def run(mini_batch):\n    return mini_batch\n",
        "from driver import run\n",
        "from driver import *\n",
        "from driver import score as run\n",
        "run = lambda mini_batch: mini_batch\n",
        "try:\n    import fast\nexcept ImportError:\n    def run(mini_batch):\n        return mini_batch\n",
    ],
)
def test_a_script_may_define_run_in_any_way(tmp_path: Path, script: str) -> None:
    (tmp_path / "score.py").write_text(script)
    check_script(tmp_path, "score.py")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("def init():\n    pass\n", r"score\.py has no function run"),
        ("class A:\n    def run(self): ...\n", r"score\.py has no function run"),
        ("def run(batch):\n    return batch[\n", r"score\.py, line 2: .*batch\["),
    ],
)
def test_a_script_that_cannot_run_is_told_with_its_line(tmp_path: Path, script: str, words: str) -> None:
    (tmp_path / "score.py").write_text(script)
    with pytest.raises(InvalidEntityError, match=words):
        check_script(tmp_path, "score.py")


def test_a_missing_script_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    with pytest.raises(InvalidEntityError, match=r"found there: main\.py"):
        check_script(tmp_path, "score.py")
    with pytest.raises(InvalidEntityError, match="leads out"):
        check_script(tmp_path, "../score.py")


def test_each_role_may_do_what_the_ones_before_it_may() -> None:
    token = Token(name="ci", role="operator", prefix="bp_", created_at=datetime.now(UTC))
    assert token.allows("reader")
    assert token.allows("operator")
    assert not token.allows("admin")
