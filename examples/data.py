"""What the examples train on, handwritten digits and docstrings, and how well an encoder does on those held out."""

from __future__ import annotations

import inspect
import re
import zlib
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

TRAINED, WORDS = 1_400, 1 << 13


def digits(*, held_out: bool = False) -> tuple[Tensor, Tensor]:
    """1,400 images of 8 x 8 pixels, f32 [1400, 1, 8, 8] in 0..1, and the digit that each shows, i64 [1400]; or 397 others."""
    images, labels = load_digits(return_X_y=True)
    part = slice(TRAINED, None) if held_out else slice(TRAINED)
    return torch.from_numpy(images[part] / 16).float().reshape(-1, 1, 8, 8), torch.from_numpy(labels[part]).long()


def batches(rows: int, size: int, epochs: int) -> Iterator[Tensor]:
    """Row numbers, i64 [size] at most, each epoch's in a new order."""
    for _ in range(epochs):
        order = torch.randperm(rows)
        for start in range(0, rows, size):
            yield order[start : start + size]


def augmented(images: Tensor) -> Tensor:
    """Another view of each image: moved by up to a pixel, brighter or darker, noisy."""
    down, right = torch.randint(3, (2, len(images), 1)) + torch.arange(8)
    which = torch.arange(len(images))[:, None, None]
    moved = pad(images, (1, 1, 1, 1))[which, 0, down[:, :, None], right[:, None, :]]
    seen = moved * (0.6 + 0.8 * torch.rand(len(images), 1, 1)) + 0.15 * torch.randn(moved.shape)
    return seen[:, None]


def image_encoder(dim: int) -> nn.Module:
    """Embeddings [B, dim] of images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, dim))


def digit_retrieval(encoder: nn.Module) -> float:
    """Mean average precision with which a held-out image finds those of its digit among all held-out ones."""
    images, labels = digits(held_out=True)
    with torch.no_grad():
        rows = normalize(encoder(images), dim=1)
    order = (rows @ rows.T).fill_diagonal_(-2.0).argsort(dim=1, descending=True)[:, :-1]
    right = (labels[order] == labels[:, None]).float()
    precision = right.cumsum(dim=1) / torch.arange(1, len(labels))
    return float(((precision * right).sum(dim=1) / right.sum(dim=1)).mean())


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


def tokens(texts: list[str]) -> Tensor:
    """Words as numbers below `WORDS`, i64 [N, L], 0 behind the last of a text."""
    words = [[1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in re.findall(r"[a-z]{2,}", text.lower())] for text in texts]
    return torch.tensor([one + [0] * (max(map(len, words)) - len(one)) for one in words])


def word_pairs() -> tuple[Tensor, Tensor]:
    """Words of docstrings, each with the one after it, i64 [N, 2]; and how often each word is a second one, i64 [WORDS]."""
    text = tokens(docstrings()[1][:200])
    pairs = torch.stack([text[:, :-1].flatten(), text[:, 1:].flatten()], dim=1)
    pairs = pairs[(pairs > 0).all(dim=1)]
    return pairs, torch.bincount(pairs[:, 1], minlength=WORDS)


def text_encoder(dim: int) -> nn.Module:
    """Embeddings [B, dim] of token numbers [B, L]."""
    return nn.EmbeddingBag(WORDS, dim, mode="mean", padding_idx=0)


def reciprocal_rank(queries: Tensor, documents: Tensor, texts: list[str]) -> float:
    """Mean reciprocal rank of each query's own text among all distinct texts; all aligned: [N, d], [N, d], N."""
    first = {text: at for at, text in reversed(list(enumerate(texts)))}
    own = torch.tensor([first[text] for text in texts])
    scores = normalize(queries, dim=1) @ normalize(documents, dim=1).T
    among = scores[:, sorted(first.values())]
    return float((1.0 / (among >= scores.gather(1, own[:, None])).sum(dim=1)).mean())
