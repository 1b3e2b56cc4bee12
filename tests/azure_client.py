"""The official ``azure-ai-ml`` client, unpatched, in a process of its own, against a server that speaks TLS."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shipped import Shipped
from warm import WarmParent

CURRENT, OLDER = "1.35.2", "1.23.1"
"""Versions of the client that ``.ci/setup azureml`` installs: the one of today, and one about two years older."""

PREAMBLE = """
import json, os, sys
from pathlib import Path
from azure.ai.ml import Input, MLClient, Output, load_component, load_environment, load_job, load_model
from azure.identity import DefaultAzureCredential
ml_client = MLClient.from_config(DefaultAzureCredential(), path="config.json")
"""
"""How every script begins, as a notebook does."""


@dataclass
class AzureClient:
    """Runs scripts with one version of the client, in a folder with a ``config.json``."""

    shipped: Shipped
    folder: Path
    """Where scripts run."""
    version: str = CURRENT
    variables: dict[str, str] = field(init=False)
    """What ``batchpoint azureml-env`` prints."""

    def __post_init__(self) -> None:
        self.python = python_with(self.version)
        self.folder.mkdir(parents=True, exist_ok=True)
        printed = self.shipped.ok("azureml-env", "--config", self.folder / "config.json")
        self.variables = dict(re.findall(r"^export (\w+)=(\S+)$", printed, re.MULTILINE))

    def run(self, script: str, *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a script (text of Python) to its end. ``ml_client`` is there; see ``PREAMBLE``."""
        return warm_python(self.version).run(
            PREAMBLE + script, cwd=self.folder, environment=self.environment(), timeout=timeout
        )

    def environment(self) -> dict[str, str]:
        """Environment variables of every script."""
        # Nothing of the checkout: the client runs in the environment of its users, where batchpoint is not installed.
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("BATCHPOINT_", "PYTHON"))}
        return {**kept, **self.variables}

    def ok(self, script: str, *, timeout: float = 120) -> str:
        """Run a script that has to succeed; what it printed."""
        done = self.run(script, timeout=timeout)
        assert done.returncode == 0, f"{script}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, script: str, *, timeout: float = 120) -> Any:
        """Run a script that has to succeed and whose last line is JSON."""
        return json.loads(self.ok(script, timeout=timeout).strip().splitlines()[-1])


@cache
def warm_python(version: str) -> WarmParent:
    """Its interpreter, with the client imported."""
    modules = ["azure.ai.ml", "azure.ai.ml.entities", "azure.ai.ml.dsl", "azure.ai.ml.parallel", "azure.identity"]
    return WarmParent(python_with(version), modules)


def python_with(version: str) -> Path:
    """The interpreter whose environment holds this version of the client."""
    python = Path(__file__).resolve().parents[1] / ".venv" / f"azureml-{version}" / "bin" / "python"
    if not python.exists():
        message = f"azure-ai-ml {version} is not installed: .ci/setup azureml"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return python
