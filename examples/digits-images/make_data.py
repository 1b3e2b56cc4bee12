"""Train a classifier on scikit-learn's digits and write the digits that it has not seen as png files.

python make_data.py made/

Writes ``made/model/digits.pkl`` and 360 images ``made/data/0000-is-5.png``, …: a number, and the digit that it shows.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC


def main() -> None:
    """Train, save, and write the images to score."""
    folder = Path(sys.argv[1])
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    pixels, digits = load_digits(return_X_y=True)
    seen, unseen, seen_digits, unseen_digits = train_test_split(pixels, digits, test_size=360, random_state=0)
    classifier = SVC(gamma=0.001).fit(seen, seen_digits)
    (folder / "model" / "digits.pkl").write_bytes(pickle.dumps(classifier))
    for number, (image, digit) in enumerate(zip(unseen, unseen_digits, strict=True)):
        grey = (image.reshape(8, 8) * 15).astype(np.uint8)
        Image.fromarray(grey).save(folder / "data" / f"{number:04}-is-{digit}.png")
    print(f"model and {len(unseen)} images in {folder}")


if __name__ == "__main__":
    main()
