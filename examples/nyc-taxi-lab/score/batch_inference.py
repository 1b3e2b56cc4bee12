"""Predict the fare of each trip of a mini-batch: the second step of the lab."""

from __future__ import annotations

import argparse

import mlflow.sklearn
import pandas as pd
from azureml_user.parallel_run import EntryScript


def init() -> None:
    """Load the model, once for each worker."""
    global model, logger
    logger = EntryScript().logger
    logger.info("init() is called.")
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder of the registered model")
    given, _ = parser.parse_known_args()
    model = mlflow.sklearn.load_model(given.model)


def run(mini_batch: pd.DataFrame) -> pd.DataFrame:
    """One fare for each trip, beside the id of its customer."""
    logger.info("run() is called with number of rows: %d", len(mini_batch))
    features = mini_batch[list(model.feature_names_in_)]
    return pd.DataFrame({"customer_id": mini_batch["customer_id"], "taxi_fare": model.predict(features).round(2)})
