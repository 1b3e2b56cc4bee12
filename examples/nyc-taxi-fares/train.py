"""Train a fare predictor on simulated trips and save it as an MLflow model with a signature.

python train.py training.csv model/
"""

from __future__ import annotations

import argparse
import logging
import shutil
import warnings
from pathlib import Path

import mlflow.sklearn
import pandas as pd
import sklearn
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

CATEGORIES = ["vendorID", "normalizeHolidayName"]
TARGET = "totalAmount"


def train(trips: pd.DataFrame) -> tuple[Pipeline, float]:
    """Fit the pipeline; answer it with its error (RMSE, dollars) on a fifth that it has not seen."""
    features, fares = trips.drop(columns=TARGET), trips[TARGET]
    seen, unseen, seen_fares, unseen_fares = train_test_split(features, fares, test_size=0.2, random_state=0)
    encode = ColumnTransformer(
        [("categories", OneHotEncoder(handle_unknown="ignore"), CATEGORIES)],
        remainder="passthrough",
    )
    pipeline = Pipeline([("encode", encode), ("predict", GradientBoostingRegressor(random_state=0))])
    pipeline.fit(seen, seen_fares)
    return pipeline, root_mean_squared_error(unseen_fares, pipeline.predict(unseen))


def save(pipeline: Pipeline, trips: pd.DataFrame, folder: Path) -> None:
    """Save as an MLflow model; the folder appears whole or not at all."""
    features = trips.drop(columns=TARGET)
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    # Both are about models from elsewhere: a pickle of one's own is safe, and these whole numbers are never missing.
    logging.getLogger("mlflow.sklearn").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer column")
    mlflow.sklearn.save_model(
        pipeline,
        unfinished,
        signature=infer_signature(features, pipeline.predict(features.head())),
        serialization_format="cloudpickle",
        pip_requirements=[
            f"mlflow-skinny=={mlflow.__version__}",
            f"scikit-learn=={sklearn.__version__}",
            f"pandas=={pd.__version__}",
        ],
    )
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def main() -> None:
    """Read the command line, train, save."""
    parser = argparse.ArgumentParser(description="Train the taxi fare predictor.")
    parser.add_argument("trips", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    # "None" is the name of an ordinary day here, not a missing value.
    trips = pd.read_csv(given.trips, keep_default_na=False)
    pipeline, error = train(trips)
    save(pipeline, trips, given.folder)
    print(f"trained on {len(trips):,} trips, RMSE ${error:.2f}; saved in {given.folder}")


if __name__ == "__main__":
    main()
