"""Simulate four hours of readings of three devices with five sensors each, some of them out of the ordinary.

python simulate_readings.py made

Writes ``made/training.csv`` (a clean window), ``made/data/sensor_data.csv`` (the next one, with outliers put in) and
``made/outliers.csv`` (which readings those are). The same every time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

DEVICES = (1, 2, 3)
RANGES = {1: (10, 15), 2: (30, 40), 3: (60, 65), 4: (80, 85), 5: (100, 110)}
"""Lowest and highest value of each sensor; in between all are equally likely."""
ROWS = 17_768
TICKS = 3_030
"""Moments, five seconds apart, of which a sensor is heard at about two in five."""
OUTLIERS_PER_KEY = 2


def simulate_readings(start: str, *, seed: int) -> pd.DataFrame:
    """Clean readings of one window, by time, device and sensor."""
    random = np.random.default_rng(seed)
    keys = [(device, sensor) for device in DEVICES for sensor in RANGES]
    places = np.sort(random.choice(TICKS * len(keys), ROWS, replace=False))
    moments = pd.date_range(start, periods=TICKS, freq="5s").strftime("%Y-%m-%d %H:%M:%S").to_numpy()
    heard = np.array(keys)[places % len(keys)]
    low, high = (np.array([RANGES[sensor][end] for sensor in heard[:, 1]], float) for end in (0, 1))
    return pd.DataFrame(
        {
            "TS": moments[places // len(keys)],
            "Device": heard[:, 0],
            "Sensor": heard[:, 1],
            "Value": random.uniform(low, high).round(6),
        }
    )


def put_outliers_in(readings: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Move some readings of each sensor of each device out of its range by five standard deviations, up and down.

    Changes ``readings``; answers with the readings that were moved.
    """
    random = np.random.default_rng(seed)
    moved = []
    for (_, sensor), rows in readings.groupby(["Device", "Sensor"]).groups.items():
        low, high = RANGES[sensor]
        far = 5 * (high - low) / np.sqrt(12)
        chosen = random.choice(rows.to_numpy(), OUTLIERS_PER_KEY, replace=False)
        readings.loc[chosen, "Value"] = [high + far, low - far]
        moved += chosen.tolist()
    return readings.loc[sorted(moved)]


def main() -> None:
    """Write the three files."""
    folder = Path(sys.argv[1])
    (folder / "data").mkdir(parents=True, exist_ok=True)
    simulate_readings("2026-01-05 19:00:05", seed=1).to_csv(folder / "training.csv", index=False)
    readings = simulate_readings("2026-01-05 23:00:05", seed=2)
    outliers = put_outliers_in(readings, seed=3)
    readings.to_csv(folder / "data" / "sensor_data.csv", index=False)
    outliers.to_csv(folder / "outliers.csv", index=False)
    print(f"{len(readings):,} readings, {len(outliers)} of them outliers, in {folder}")


if __name__ == "__main__":
    main()
