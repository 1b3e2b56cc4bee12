"""Other tools, as one would use them in two lines; measured only where they are installed.

Each writes less than Batchpoint does: no file and row, no receipt. They stand beside the floors for orientation.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from memory import MARK
from workloads import MODELS, Workload

JOBLIB = """
import pickle, sys, pandas as pd
from joblib import Parallel, delayed
path, model, output, workers = sys.argv[1:]
pipeline = pickle.load(open(model + "/model.pkl", "rb"))
blocks = pd.read_csv(path, keep_default_na=False, chunksize=25_000)
parts = Parallel(n_jobs=int(workers))(delayed(pipeline.predict)(block) for block in blocks)
pd.concat(map(pd.Series, parts)).to_csv(output, index=False)
"""
DASK = """
import pickle, sys, dask.dataframe as dd, pandas as pd
path, model, output, workers = sys.argv[1:]
pipeline = pickle.load(open(model + "/model.pkl", "rb"))
table = dd.read_csv(path, keep_default_na=False)
predicted = table.map_partitions(lambda part: pd.Series(pipeline.predict(part)), meta=(None, "f8"))
predicted.to_csv(output, single_file=True, compute_kwargs={"scheduler": "processes", "num_workers": int(workers)})
"""
RAY = """
import pickle, sys, pandas as pd, ray
path, model, output, workers = sys.argv[1:]
ray.init(num_cpus=int(workers), log_to_driver=False)
class Predict:
    def __init__(self): self.pipeline = pickle.load(open(model + "/model.pkl", "rb"))
    def __call__(self, table): return pd.DataFrame({"prediction": self.pipeline.predict(table)})
data = ray.data.read_csv(path).map_batches(Predict, batch_format="pandas", concurrency=int(workers))
data.write_csv(output)
"""
SCRIPTS = {"joblib": JOBLIB, "dask": DASK, "ray": RAY}
NEEDS = {"joblib": "joblib", "dask": "dask.dataframe", "ray": "ray.data"}


def peers_for(workload: Workload, data: Path, workers: int) -> dict[str, tuple[Callable[[], float | None], str]]:
    """The installed tools that can score this workload: one csv file with the taxi model."""
    path = workload.prepare(data)
    if workload.kind != "taxi" or path.suffix != ".csv":
        return {}
    model, output = MODELS["taxi"](data), data / "peer-output"
    given = [str(path), str(model), str(output), str(workers)]
    commands = {
        name: [sys.executable, "-c", text, *given] for name, text in SCRIPTS.items() if is_installed(NEEDS[name])
    }
    if shutil.which("mlflow"):
        predict = ["models", "predict", "-m", str(model), "-i", str(path), "-t", "csv", "-o", str(output)]
        commands["mlflow"] = ["mlflow", *predict, "--env-manager", "local"]
    return {name: runner(command, output, f"{name}-{os.getpid()}") for name, command in commands.items()}


def is_installed(module: str) -> bool:
    """Whether the module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def runner(command: list[str], output: Path, mark: str) -> tuple[Callable[[], float | None], str]:
    """What runs a command once, with nothing left of its last output."""

    def run() -> None:
        shutil.rmtree(output, ignore_errors=True)
        output.unlink(missing_ok=True)
        subprocess.run(command, check=True, env=os.environ | {MARK: mark}, stdout=subprocess.DEVNULL)

    return run, mark
