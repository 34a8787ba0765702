"""Negative samples for contrastive-learning trainers, served from a bank that moves with the model.

    import negbank

    client = negbank.connect("127.0.0.1:7700")
    bank = client.create_bank("docs", dim=128)
    bank.write(ids, embeddings, groups=groups, step=step)
    negs = bank.sample(queries, negbank.Nearest(64), positive_ids=ids, anchor_groups=groups)
    negatives = negs.embeddings[negs.indices]  # [B, 64, 128]

Shapes: B anchors, K negatives an anchor, U distinct entries served, R rows of a write, d floats an embedding.
Scores: higher is closer. A client, its banks and its answers may be used from any thread; calls release the GIL.
Arrays: numpy's, or torch tensors where the anchors (of `fetch`, the ids) are one; the package itself needs numpy only.
"""

from ._negbank import VERSION as __version__
from .bank import Bank
from .client import Client, connect
from .draws import Balanced, Band, Nearest, Softmax, Uniform, Weighted
from .entries import Entries, Stalest
from .errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ShortAnswer,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from .filters import Filters
from .gathered import Gathered
from .info import BankInfo, Checkpoint, GatherInfo, IndexInfo, OpenStage, SampleInfo
from .mirror import Changes, Mirror
from .negatives import Negatives
from .pending import Pending
from .picks import Picks
from .prefetch import Age, Prefetch
from .receipts import Enqueued, Written
from .sampler import Sampler
from .scanning import Everything, ScanChunk
from .writes import Stage, Write

__all__ = [
    "Age",
    "AlreadyExists",
    "Balanced",
    "Band",
    "Bank",
    "BankInfo",
    "Cancelled",
    "Changes",
    "Checkpoint",
    "Client",
    "DeadlineExceeded",
    "Enqueued",
    "Entries",
    "Error",
    "Everything",
    "FailedPrecondition",
    "Filters",
    "GatherInfo",
    "Gathered",
    "IndexInfo",
    "InternalError",
    "InvalidArgument",
    "Mirror",
    "Nearest",
    "Negatives",
    "NotFound",
    "OpenStage",
    "Pending",
    "PermissionDenied",
    "Picks",
    "Prefetch",
    "ResourceExhausted",
    "SampleInfo",
    "Sampler",
    "ScanChunk",
    "ShortAnswer",
    "Softmax",
    "Stage",
    "Stalest",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Uniform",
    "Weighted",
    "Write",
    "Written",
    "__version__",
    "connect",
]
