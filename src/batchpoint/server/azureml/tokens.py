"""The managed-identity answer: a short-lived token for a user's API token."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["azureml"], include_in_schema=False)
