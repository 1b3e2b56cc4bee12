"""Train a model for each sensor of each device, and register all of them.

python train.py made

Reads ``made/training.csv``, writes ``made/models/model_<device>_<sensor>.pkl``, and registers each under that name.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from batchpoint import Client, Model


def main() -> None:
    """Train on the clean window."""
    folder = Path(sys.argv[1])
    models = folder / "models"
    models.mkdir(exist_ok=True)
    with Client() as client:
        for (device, sensor), readings in pd.read_csv(folder / "training.csv").groupby(["Device", "Sensor"]):
            model = make_pipeline(StandardScaler(), OneClassSVM(nu=0.0001, kernel="rbf", gamma=0.01))
            path = models / f"model_{device}_{sensor}.pkl"
            path.write_bytes(pickle.dumps(model.fit(readings[["Value"]])))
            client.models.create_or_update(Model(name=path.stem, path=str(path)))
    print(f"{len(list(models.iterdir()))} models in {models}, all registered")


if __name__ == "__main__":
    main()
