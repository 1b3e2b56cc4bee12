"""Recognise digits with PyTorch: ``run()`` gets a DataFrame of rows, whatever the files' sizes."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import torch

network = None


def init() -> None:
    """Load the weights, once for each worker."""
    global network
    weights = torch.load(Path(os.environ["AZUREML_MODEL_DIR"]) / "model" / "mlp.pt", weights_only=True)
    network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    network.load_state_dict(weights)
    network.eval()


def run(mini_batch: pd.DataFrame) -> pd.DataFrame:
    """One digit, and how sure the network is of it, for each row."""
    pixels = torch.tensor(mini_batch.to_numpy(), dtype=torch.float32)
    with torch.inference_mode():
        certainty, digit = network(pixels).softmax(dim=1).max(dim=1)
    return pd.DataFrame({"digit": digit.numpy(), "certainty": certainty.numpy().round(4)})
