"""Train a small network on scikit-learn's digits and write the digits that it has not seen as csv files.

python make_data.py made/

Writes ``made/model/mlp.pt`` and ``made/data/digits-0.csv`` to ``digits-3.csv`` (90 rows of 64 pixels each).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

try:
    import torch
except ImportError:
    sys.exit("This example needs PyTorch: pip install torch")


def train(pixels: torch.Tensor, digits: torch.Tensor) -> torch.nn.Module:
    """A network with one hidden layer, trained for a second or two."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(pixels), digits).backward()
        optimizer.step()
    return network


def main() -> None:
    """Train, save, and write the files to score."""
    folder = Path(sys.argv[1])
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    pixels, digits = load_digits(return_X_y=True)
    seen, unseen, seen_digits, _ = train_test_split(pixels / 16, digits, test_size=360, random_state=0)
    network = train(torch.tensor(seen, dtype=torch.float32), torch.tensor(seen_digits))
    torch.save(network.state_dict(), folder / "model" / "mlp.pt")
    for number in range(4):
        rows = pd.DataFrame(unseen[number * 90 : (number + 1) * 90])
        rows.to_csv(folder / "data" / f"digits-{number}.csv", index=False)
    print(f"model and four files of digits in {folder}")


if __name__ == "__main__":
    main()
