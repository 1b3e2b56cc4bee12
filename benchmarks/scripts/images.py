"""Decode images and classify them, a mini-batch at a time."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

model = None


def init() -> None:
    """Load the model."""
    global model
    model = pickle.loads((Path(os.environ["AZUREML_MODEL_DIR"]) / "images-model" / "model.pkl").read_bytes())


def run(mini_batch: list[str]) -> list[int]:
    """One digit for each image."""
    pixels = np.stack([np.asarray(Image.open(path)).ravel() / 255.0 for path in mini_batch])
    return model.predict(pixels).tolist()
