"""Compare the predictions with what is known of the readings: every outlier flagged, hardly anything else.

python check_predictions.py made output

``output`` is the folder of a downloaded job: ``predictions.csv``, and a file for each sensor of each device.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

KEY = ["TS", "Device", "Sensor"]
MOST_FALSE_ALARMS = 0.01


def main() -> None:
    """Check; the exit status is 1, with a word on what is wrong, unless all holds."""
    made, output = Path(sys.argv[1]), Path(sys.argv[2])
    readings = pd.read_csv(made / "data" / "sensor_data.csv")
    outliers = pd.read_csv(made / "outliers.csv").set_index(KEY).index
    predictions = pd.read_csv(output / "predictions.csv")
    check(list(predictions.columns) == [*KEY, "Val", "Prediction"], f"the columns are {list(predictions.columns)}")
    scored = predictions.sort_values(KEY, ignore_index=True)
    wanted = readings.sort_values(KEY, ignore_index=True).rename(columns={"Value": "Val"})
    check(scored[[*KEY, "Val"]].equals(wanted), "the readings beside the predictions are not those that were scored")
    files = sorted(output.glob("preds_*.csv"))
    apart = pd.concat([pd.read_csv(file) for file in files]).sort_values(KEY, ignore_index=True)
    check(apart.equals(scored), "the files of the keys do not hold the rows of the one file")
    is_outlier = pd.MultiIndex.from_frame(scored[KEY]).isin(outliers)
    found = int(scored.loc[is_outlier, "Prediction"].sum())
    check(found == len(outliers), f"{len(outliers) - found} of {len(outliers)} outliers were not flagged")
    alarms = float(scored.loc[~is_outlier, "Prediction"].mean())
    check(alarms <= MOST_FALSE_ALARMS, f"{alarms:.2%} of the clean readings were flagged")
    print(
        f"{len(scored):,} predictions in one file and in {len(files)}: all {found} outliers flagged, "
        f"and {alarms:.2%} of the clean readings"
    )


def check(holds: bool, otherwise: str) -> None:
    """End the program unless something holds."""
    if not holds:
        raise SystemExit(f"Wrong: {otherwise}.")


if __name__ == "__main__":
    main()
