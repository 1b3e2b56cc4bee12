"""Batchpoint, as it is measured: a server of its own folder, asked through the Python client."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from memory import MARK, marked, read
from workloads import HERE, MODELS, Workload

from batchpoint import BatchDeployment, BatchEndpoint, Client, Compute, Model

ENVIRONMENT = {"name": "bench", "version": "1", "pip_requirements": ["pandas", "scikit-learn"]}
KEYS = ["Device", "Sensor"]
"""Of W2."""


@dataclass
class Server:
    """A running server and what is registered there."""

    home: Path
    data: Path
    workers: int
    mark: str

    def start(self) -> None:
        """Start on an empty folder, and register a compute."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        os.environ |= {"BATCHPOINT_HOME": str(self.home), MARK: self.mark}
        self.client = Client()
        compute = Compute(name="bench", max_instances=1, idle_time_before_scale_down=600)
        self.client.computes.create_or_update(compute)

    def stop(self) -> None:
        """Stop the server and what it started."""
        subprocess.run(["batchpoint", "down"], check=False)
        self.cool_down()
        del os.environ[MARK]

    def deploy(self, workload: Workload, *, sketches: bool = True) -> str:
        """Register model, endpoint and deployment; answer with the endpoint's name."""
        endpoint = f"bench-{workload.name}" if sketches else f"bench-{workload.name}-plain"
        model = self._register_model(workload.kind) if workload.kind in MODELS else None
        declared: dict[str, object] = {"model": model}
        if workload.script:
            declared["code_configuration"] = {"code": str(HERE / "scripts"), "scoring_script": workload.script}
            declared["environment"] = ENVIRONMENT
            declared["environment_variables"] = {"ITEM_SECONDS": workload.item_seconds}
        if not sketches:
            declared["batchpoint"] = {"quality": {"sketches": False}}
        return self._declare(endpoint, declared, workload.settings)

    def deploy_map(self, models: Path, *, cached_models: int) -> str:
        """Register W2 with the models of a folder, of which a worker keeps so many; the endpoint's name."""
        model_map = {
            "folder": str(models),
            "file_pattern": "model_{Device}_{Sensor}.pkl",
            "cached_models": cached_models,
        }
        kept = {"partition_keys": KEYS, "passthrough": KEYS, "model_map": model_map}
        return self._declare(f"bench-w2-map-{cached_models}", {"environment": ENVIRONMENT, "batchpoint": kept}, {})

    def deploy_by_key(self, models: Path, code: Path) -> str:
        """Register W2 with a user's script, ``score.py`` in ``code``; the endpoint's name."""
        declared = {
            "code_configuration": {"code": str(code), "scoring_script": "score.py"},
            "environment": ENVIRONMENT,
            "environment_variables": {"MODELS": str(models)},
            "batchpoint": {"partition_keys": KEYS, "mini_batch_type": "dataframe"},
        }
        return self._declare("bench-w2-script", declared, {})

    def _declare(self, endpoint: str, declared: dict[str, object], settings: dict[str, object]) -> str:
        self.client.endpoints.create_or_update(BatchEndpoint(name=endpoint))
        common = {"max_concurrency_per_instance": self.workers, "retry_settings": {"timeout": 600}}
        place = {"name": "bench", "endpoint_name": endpoint, "compute": "bench", "settings": {**common, **settings}}
        deployment = BatchDeployment.model_validate({**place, **declared})
        self.client.deployments.create_or_update(deployment, set_default=True)
        return endpoint

    def _register_model(self, kind: str) -> str:
        path = MODELS[kind](self.data)
        model_type = "mlflow_model" if kind == "taxi" else "custom_model"
        model = Model(name=f"bench-{kind}", version="1", type=model_type, path=str(path))
        return f"azureml:{self.client.models.create_or_update(model).reference}"

    def score(self, endpoint: str, path: Path, *, expect_failed: int = 0) -> float:
        """Seconds from the invoke to the published output.

        Raises:
            RuntimeError: the job did not end as it should.
        """
        started = time.perf_counter()
        job = self.client.endpoints.invoke(endpoint, input=str(path))
        job.wait()
        seconds = time.perf_counter() - started
        receipt = job.receipt
        if receipt is None or not receipt.balanced or receipt.failed != expect_failed:
            raise RuntimeError(f"job {job.name} of {endpoint} did not end well: receipt {receipt}")
        return seconds

    def cool_down(self) -> None:
        """End the fork servers, so that the next job's workers start cold."""
        for pid in marked(f"{MARK}={self.mark}".encode()):
            if b"fork_server" in read(pid, "cmdline"):
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    continue
        time.sleep(0.5)


def score_without_server(path: Path, model: Path, output: Path, *, workers: int, mark: str) -> float:
    """Seconds of ``batchpoint score``, from the start of the process to its end."""
    output.parent.mkdir(exist_ok=True)
    command = ["batchpoint", "score", "--model", str(model), "--data", str(path), "-o", str(output)]
    command += ["--workers", str(workers), "--overwrite"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {MARK: mark})
    return time.perf_counter() - started
