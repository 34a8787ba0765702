"""InfoNCE and its gradients."""

from __future__ import annotations

import numpy as np


def info_nce(logits: np.ndarray, counted: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over rows of -ln softmax(logits)[positive] and its gradient [B, n] with respect to the logits.

    logits f32 [B, n]; `counted` bool [B, n] says which candidates take part (the positive must);
    `positive` i64 [B] is its column.
    """
    rows = np.arange(len(logits))
    kept = np.where(counted, logits, np.float32(-np.inf))
    exponentials = np.exp(kept - kept.max(axis=1, keepdims=True))
    share = exponentials / exponentials.sum(axis=1, keepdims=True)
    loss = -float(np.log(np.maximum(share[rows, positive], 1e-30)).mean())
    share[rows, positive] -= 1
    return loss, share / np.float32(len(logits))


def in_batch_loss(queries, documents, counted, temperature: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Each query [B, d] against all documents [B, d] of the batch, its own on the diagonal.

    Returns the loss and its gradients with respect to queries and documents.
    """
    heat = np.float32(temperature)
    loss, slope = info_nce(queries @ documents.T / heat, counted, np.arange(len(queries)))
    slope /= heat
    return loss, slope @ documents, slope.T @ queries


def served_loss(queries, documents, negatives, counted, temperature: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Each query [B, d] and its document [B, d] against its own served negatives [B, K, d], which are constants.

    `counted` bool [B, K]. Returns the loss and its gradients with respect to queries and documents.
    """
    heat = np.float32(temperature)
    own = np.einsum("bd,bd->b", queries, documents)[:, None]
    logits = np.concatenate([own, np.einsum("bd,bkd->bk", queries, negatives)], axis=1) / heat
    all_counted = np.concatenate([np.ones((len(queries), 1), dtype=bool), counted], axis=1)
    loss, slope = info_nce(logits, all_counted, np.zeros(len(queries), dtype=np.int64))
    slope /= heat
    to_queries = slope[:, :1] * documents + np.einsum("bk,bkd->bd", slope[:, 1:], negatives)
    return loss, to_queries, slope[:, :1] * queries
