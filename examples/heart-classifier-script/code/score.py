"""Score csv files of patients: one row of output for each patient."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import pandas as pd

classifier = None


def init() -> None:
    """Load the model, once for each worker."""
    global classifier
    path = Path(os.environ["AZUREML_MODEL_DIR"]) / "model" / "model.pkl"
    classifier = pickle.loads(path.read_bytes())
    logging.getLogger(__name__).info("loaded %s", path)


def run(mini_batch: list[str]) -> pd.DataFrame:
    """Diagnose the patients of each file; a row names the file it comes from."""
    return pd.concat([diagnose(Path(path)) for path in mini_batch])


def diagnose(path: Path) -> pd.DataFrame:
    """The patients' probabilities and diagnoses."""
    patients = pd.read_csv(path)
    probability = classifier.predict_proba(patients)[:, 1]
    return pd.DataFrame(
        {
            "source": path.name,
            "patient": patients.index,
            "probability": probability.round(4),
            "ill": probability > 0.5,
        }
    )
