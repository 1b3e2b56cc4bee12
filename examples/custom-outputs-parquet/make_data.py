"""Make eight csv files of sensor readings.

python make_data.py made/

Writes ``made/data/device-1.csv`` to ``device-8.csv`` (500 rows each).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd


def main() -> None:
    """Write the files to score."""
    folder = Path(sys.argv[1]) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for device in range(1, 9):
        random = np.random.default_rng(device)
        readings = pd.DataFrame({"second": np.arange(0, 2500, 5), "value": random.normal(20 + device, 2, 500).round(3)})
        readings.to_csv(folder / f"device-{device}.csv", index=False)
    print(f"eight files of readings in {folder}")


if __name__ == "__main__":
    main()
