"""Make small csv files of patients, and a classifier trained on others like them.

python make_data.py made/

Writes ``made/model/model.pkl`` and ``made/data/patients-0.csv`` to ``patients-3.csv`` (100, 100, 100 and 3 rows).
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def simulate_patients(rows: int, *, seed: int) -> pd.DataFrame:
    """Patients with the usual measurements; nobody real."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": random.integers(29, 78, rows),
            "sex": random.integers(0, 2, rows),
            "trestbps": random.normal(131, 17, rows).round(0),
            "chol": random.normal(246, 50, rows).round(0),
            "thalach": random.normal(150, 22, rows).round(0),
            "oldpeak": random.gamma(1.0, 1.0, rows).round(1),
        }
    )


def diagnose(patients: pd.DataFrame, *, seed: int) -> np.ndarray:
    """1 where the simulated patient has the disease, else 0."""
    random = np.random.default_rng(seed)
    risk = 0.05 * (patients["age"] - 54) + 0.8 * patients["oldpeak"] - 0.03 * (patients["thalach"] - 150) - 0.6
    return (risk + random.normal(0, 1, len(patients)) > 0).astype(int).to_numpy()


def main() -> None:
    """Train, save, and write the files to score."""
    folder = Path(sys.argv[1])
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    training = simulate_patients(2000, seed=0)
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(training, diagnose(training, seed=1))
    (folder / "model" / "model.pkl").write_bytes(pickle.dumps(classifier))
    for number, rows in enumerate([100, 100, 100, 3]):
        patients = simulate_patients(rows, seed=10 + number)
        patients.to_csv(folder / "data" / f"patients-{number}.csv", index=False)
    print(f"model and four files of patients in {folder}")


if __name__ == "__main__":
    main()
