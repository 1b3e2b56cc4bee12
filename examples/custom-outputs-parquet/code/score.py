"""Find outliers among sensor readings and write them as parquet: a deployment without a model, with its own output."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

output = Path()


def init() -> None:
    """Find the place for output, and read the limit that the deployment sets."""
    global output
    output = Path(os.environ["AZUREML_BI_OUTPUT_PATH"])


def run(mini_batch: list[str]) -> list[str]:
    """Write one parquet file for each input file; answer with the inputs that are done, which counts them as ok."""
    limit = float(os.environ["OUTLIER_LIMIT"])
    for path in map(Path, mini_batch):
        readings = pd.read_csv(path)
        distance = (readings["value"] - readings["value"].mean()).abs() / readings["value"].std()
        readings["outlier"] = distance > limit
        # Written beside and renamed, so that a second attempt at the same file leaves no torn one.
        unfinished = output / f".{path.stem}.part"
        readings.to_parquet(unfinished)
        unfinished.replace(output / f"{path.stem}.parquet")
    return mini_batch
