"""Small real data for the examples: handwritten digits, and docstrings."""

from __future__ import annotations

import inspect
import re

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor


def digits() -> tuple[Tensor, Tensor]:
    """1,797 images of 8 x 8 pixels, float32 [1797, 1, 8, 8] in 0..1, and which digit each shows, int64 [1797]."""
    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images.astype(np.float32) / 16).reshape(-1, 1, 8, 8), torch.from_numpy(labels.astype(np.int64))


def docstrings() -> tuple[list[str], list[str]]:
    """Summaries and bodies of numpy's docstrings, aligned; aliases have the same text twice."""
    summaries, bodies = [], []
    for module in (np, np.linalg, np.fft, np.random):
        for name, value in sorted(vars(module).items()):
            if name.startswith("_") or not callable(value):
                continue
            paragraphs = [" ".join(part.split()) for part in (inspect.getdoc(value) or "").split("\n\n")]
            if re.match(r"\w+\(", paragraphs[0]):  # a signature
                del paragraphs[0]
            if len(paragraphs) > 1:
                summaries.append(paragraphs[0])
                bodies.append(" ".join(paragraphs[1:])[:400])
    return summaries, bodies
