"""Jobs of the control plane: show, list, create pipelines, cancel."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["azureml"], include_in_schema=False)
