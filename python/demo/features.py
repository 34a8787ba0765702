"""Words as sparse features: a bag of hashed words a row, each row of unit length."""

from __future__ import annotations

import zlib

import numpy as np
from scipy.sparse import csr_array

BUCKETS = 1 << 14


def hashed_words(texts: list[list[str]], words_max: int) -> csr_array:
    """f32 CSR [N, BUCKETS] from the first `words_max` words of each text; weights are 1 + ln(count)."""
    buckets: dict[str, int] = {}
    indptr, indices, data = [0], [], []
    for words in texts:
        counts: dict[int, int] = {}
        for word in words[:words_max]:
            bucket = buckets.setdefault(word, zlib.crc32(word.encode()) % BUCKETS)
            counts[bucket] = counts.get(bucket, 0) + 1
        weights = 1.0 + np.log(np.fromiter(counts.values(), dtype=np.float32, count=len(counts)))
        data.append(weights / np.linalg.norm(weights))
        indices.extend(counts)
        indptr.append(len(indices))
    return csr_array(
        (np.concatenate(data).astype(np.float32), np.array(indices, dtype=np.int32), np.array(indptr, dtype=np.int32)),
        shape=(len(texts), BUCKETS),
    )
