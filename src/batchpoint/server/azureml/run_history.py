"""What the client reads of running jobs: children, details, logs, outputs."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["azureml"], include_in_schema=False)
