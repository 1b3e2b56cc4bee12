"""promtool, with which Prometheus checks metrics and expressions; `.ci/setup promtool` fetches it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FETCHED = Path(__file__).resolve().parent.parent / ".venv" / "promtool" / "promtool"


def promtool(*arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run it. Where it is not installed the test is skipped at home, and fails where ``CI`` is true."""
    program = str(FETCHED) if FETCHED.exists() else shutil.which("promtool")
    if program is None:
        reason = "promtool is not installed: .ci/setup promtool fetches it, on Debian and the like."
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason)
        pytest.skip(reason)
    text = given.decode() if given is not None else None
    return subprocess.run([program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
