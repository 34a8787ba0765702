"""Negative samples for contrastive-learning trainers, served from a bank that moves with the model.

    import negbank

    client = negbank.connect("127.0.0.1:7700")
    bank = client.create_bank("docs", dim=128)
    bank.write(ids, embeddings, groups=groups, step=step)
    negs = bank.sample(queries, negbank.Nearest(64), positive_ids=ids, anchor_groups=groups)
    negatives = negs.embeddings[negs.indices]  # [B, 64, 128]

Shapes: B anchors, K negatives an anchor, U distinct entries served, R rows of a write, d floats an embedding.
Scores: higher is closer. A client, its banks and its answers may be used from any thread; calls release the GIL.
"""

from ._negbank import VERSION as __version__
from .bank import Bank
from .client import Client, connect
from .draws import Nearest, Uniform
from .entries import Entries
from .errors import (
    AlreadyExists,
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ShortAnswer,
    Unavailable,
)
from .info import BankInfo, SampleInfo
from .negatives import Negatives
from .picks import Picks
from .receipts import Enqueued, Written

__all__ = [
    "AlreadyExists",
    "Bank",
    "BankInfo",
    "Client",
    "DeadlineExceeded",
    "Enqueued",
    "Entries",
    "Error",
    "FailedPrecondition",
    "InvalidArgument",
    "Nearest",
    "Negatives",
    "NotFound",
    "Picks",
    "ResourceExhausted",
    "SampleInfo",
    "ShortAnswer",
    "Unavailable",
    "Uniform",
    "Written",
    "__version__",
    "connect",
]
