"""Simulate readings of three devices with five sensors each, and train a small model for each sensor.

python make_sensors.py made

Writes ``made/data/sensor_data.csv``, in which one reading of each sensor is far out of its range, and
``made/models/model_<device>_<sensor>.json``: the mean of a clean window, and its standard deviation.
"""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

DEVICES = (1, 2, 3)
RANGES = {1: (10, 15), 2: (30, 40), 3: (60, 65), 4: (80, 85), 5: (100, 110)}
"""Lowest and highest value of each sensor; in between all are equally likely."""
READINGS = 200
START = datetime(2026, 1, 5, 23, 0, 5, tzinfo=UTC)


def main() -> None:
    """Write the models and the data."""
    folder = Path(sys.argv[1])
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    rows = []
    for device in DEVICES:
        for sensor, (low, high) in RANGES.items():
            clean, values = random.uniform(low, high, (2, READINGS))
            model = {"mean": clean.mean(), "deviation": clean.std()}
            (folder / "models" / f"model_{device}_{sensor}.json").write_text(json.dumps(model))
            values[random.integers(READINGS)] = high + 5 * clean.std()
            rows += [(START + timedelta(seconds=5 * n), device, sensor, value) for n, value in enumerate(values)]
    with (folder / "data" / "sensor_data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["TS", "Device", "Sensor", "Value"])
        for at, device, sensor, value in sorted(rows):
            writer.writerow([f"{at:%Y-%m-%d %H:%M:%S}", device, sensor, f"{value:.6f}"])
    print(f"{len(rows):,} readings and {len(DEVICES) * len(RANGES)} models in {folder}")


if __name__ == "__main__":
    main()
