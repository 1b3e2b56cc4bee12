"""Make sure that every trip has one prediction, and that the predictions stand in the order of the trips.

python check_predictions.py trips.csv predictions.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd


def check(trips: Path, predictions: Path) -> str:
    """A line that says what was found to be in order.

    Raises:
        SystemExit: a prediction is missing, twice there, not a number, or out of order.
    """
    with trips.open("rb") as file:
        expected = sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b"")) - 1
    table = pd.read_csv(predictions)
    if len(table) != expected:
        raise SystemExit(f"{len(table):,} predictions for {expected:,} trips in {predictions}")
    if not np.array_equal(table["row"], np.arange(expected)):
        raise SystemExit(f"the predictions in {predictions} are not in the order of the trips")
    if table["prediction"].isna().any():
        raise SystemExit(f"there are predictions without a value in {predictions}")
    return f"{expected:,} predictions for {expected:,} trips, in input order"


if __name__ == "__main__":
    print(check(Path(sys.argv[1]), Path(sys.argv[2])))
