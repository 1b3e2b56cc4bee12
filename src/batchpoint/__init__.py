"""Batchpoint: batch endpoints on your own machines.

The public surface: the client, the entities and the errors. Each is imported when it is first used, so that
``import batchpoint`` and the command are quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from batchpoint.client import Client as Client
    from batchpoint.client import VersionMismatchWarning as VersionMismatchWarning
    from batchpoint.client.files import load as load
    from batchpoint.client.jobs import Job as Job
    from batchpoint.entities.assets import Code as Code
    from batchpoint.entities.assets import Data as Data
    from batchpoint.entities.assets import Environment as Environment
    from batchpoint.entities.assets import Model as Model
    from batchpoint.entities.endpoints import BatchDeployment as BatchDeployment
    from batchpoint.entities.endpoints import BatchEndpoint as BatchEndpoint
    from batchpoint.entities.endpoints import CodeConfiguration as CodeConfiguration
    from batchpoint.entities.endpoints import DeploymentSettings as DeploymentSettings
    from batchpoint.entities.endpoints import ModelMap as ModelMap
    from batchpoint.entities.endpoints import RetrySettings as RetrySettings
    from batchpoint.entities.endpoints import ScoringOptions as ScoringOptions
    from batchpoint.entities.jobs import Input as Input
    from batchpoint.entities.jobs import JobStatus as JobStatus
    from batchpoint.entities.jobs import Output as Output
    from batchpoint.entities.jobs import Overrides as Overrides
    from batchpoint.entities.jobs import Progress as Progress
    from batchpoint.entities.jobs import Receipt as Receipt
    from batchpoint.entities.pipeline_deployments import CommandJob as CommandJob
    from batchpoint.entities.pipeline_deployments import PipelineDeployment as PipelineDeployment
    from batchpoint.entities.pipelines import CommandStep as CommandStep
    from batchpoint.entities.pipelines import Component as Component
    from batchpoint.entities.pipelines import ParallelStep as ParallelStep
    from batchpoint.entities.pipelines import ParallelTask as ParallelTask
    from batchpoint.entities.pipelines import Pipeline as Pipeline
    from batchpoint.entities.pipelines import PipelineSettings as PipelineSettings
    from batchpoint.entities.pipelines import PipelineStep as PipelineStep
    from batchpoint.entities.resources import Compute as Compute
    from batchpoint.entities.resources import Datastore as Datastore
    from batchpoint.entities.schedules import Schedule as Schedule
    from batchpoint.entities.schedules import ScheduledInvoke as ScheduledInvoke
    from batchpoint.entities.schedules import ScheduledJob as ScheduledJob
    from batchpoint.entities.schedules import ScheduleOptions as ScheduleOptions
    from batchpoint.entities.schedules import ScheduleRun as ScheduleRun
    from batchpoint.entities.triggers import CronTrigger as CronTrigger
    from batchpoint.entities.triggers import FileTrigger as FileTrigger
    from batchpoint.entities.triggers import RecurrencePattern as RecurrencePattern
    from batchpoint.entities.triggers import RecurrenceTrigger as RecurrenceTrigger
    from batchpoint.entities.webhooks import Webhook as Webhook
    from batchpoint.settings import Settings as Settings

_PUBLIC = {
    "batchpoint.client": ("Client", "VersionMismatchWarning"),
    "batchpoint.client.files": ("load",),
    "batchpoint.client.jobs": ("Job",),
    "batchpoint.entities.assets": ("Code", "Data", "Environment", "Model"),
    "batchpoint.entities.endpoints": (
        "BatchDeployment", "BatchEndpoint", "CodeConfiguration", "DeploymentSettings", "ModelMap", "RetrySettings",
        "ScoringOptions",
    ),
    "batchpoint.entities.jobs": ("Input", "JobStatus", "Output", "Overrides", "Progress", "Receipt"),
    "batchpoint.entities.pipeline_deployments": ("CommandJob", "PipelineDeployment"),
    "batchpoint.entities.pipelines": (
        "CommandStep", "Component", "ParallelStep", "ParallelTask", "Pipeline", "PipelineSettings", "PipelineStep",
    ),
    "batchpoint.entities.resources": ("Compute", "Datastore"),
    "batchpoint.entities.schedules": (
        "Schedule", "ScheduleOptions", "ScheduleRun", "ScheduledInvoke", "ScheduledJob",
    ),
    "batchpoint.entities.triggers": ("CronTrigger", "FileTrigger", "RecurrencePattern", "RecurrenceTrigger"),
    "batchpoint.entities.webhooks": ("Webhook",),
    "batchpoint.settings": ("Settings",),
}  # fmt: skip

_HOME_OF = {name: module for module, names in _PUBLIC.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    if not name.startswith("_"):
        errors = import_module("batchpoint.errors")
        if hasattr(errors, name):
            return getattr(errors, name)
    message = f"module 'batchpoint' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
