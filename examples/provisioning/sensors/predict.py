"""Tell which readings of one sensor are out of the ordinary.

predict.py DEVICE SENSOR MODELS_FOLDER DATA_FOLDER DATA_FILE OUTPUT_FOLDER

Writes ``preds_<device>_<sensor>_<time>.csv`` with a prediction for each reading: 1 is an anomaly, 0 is none.
"""

import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

MOST_DEVIATIONS = 4
"""A reading that is farther from the mean is an anomaly."""


def main(device: str, sensor: str, models: str, data: str, data_file: str, output: str) -> None:
    model = json.loads(Path(models, f"model_{device}_{sensor}.json").read_text())
    with Path(data, data_file).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["Device"], row["Sensor"]) == (device, sensor)]
    values = np.array([row["Value"] for row in rows], float)
    predictions = (np.abs(values - model["mean"]) > MOST_DEVIATIONS * model["deviation"]).astype(int)

    folder = Path(output)
    folder.mkdir(parents=True)  # it is this script's to make
    target = folder / f"preds_{device}_{sensor}_{datetime.now(UTC):%y%m%d%H%M%S}.csv"
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["TS", "Device", "Sensor", "Val", "Prediction"])
        for row, prediction in zip(rows, predictions, strict=True):
            writer.writerow([row["TS"], device, sensor, row["Value"], prediction])
    print(f"{predictions.sum()} of {len(rows)} readings of sensor {sensor} of device {device} are anomalies.")


if __name__ == "__main__":
    main(*sys.argv[1:7])
