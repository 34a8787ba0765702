"""Anchors: from the arguments of `Bank.sample` to the columns of a request."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .errors import InvalidArgument
from .integers import integers, masked_vector, vector
from .matrices import floats, views
from .per_anchor import per_anchor
from .requests import AnchorColumns, FloatMatrix
from .scalars import whole


def anchor_columns(
    anchors: Any,
    dim: int,
    *,
    combine: str,
    anchor_ids: Any,
    anchor_labels: Any,
    anchor_groups: Any,
    positive_scores: Any,
    positive_ids: Any,
    denied_ids: Any,
) -> AnchorColumns:
    """Columns for anchors given as embeddings, as ids of stored entries, or as a number of them."""
    ids = None if anchor_ids is None else vector(anchor_ids, np.uint64, "anchor_ids")
    embeddings: FloatMatrix | None = None
    each = 1
    if isinstance(anchors, (int, np.integer)):
        count = whole(anchors, "anchors")
    elif anchors is not None:
        embeddings, each = views(anchors, dim, "anchors")
        count = embeddings.rows // each
    elif ids is not None:
        count = ids.size
    else:
        raise InvalidArgument.of("anchors", f"are required: an array [B, {dim}], None with anchor_ids, or a number of them")
    labels, has_label = masked_vector(anchor_labels, np.int64, "anchor_labels")
    groups, has_group = masked_vector(anchor_groups, np.uint64, "anchor_groups")
    id_lists = partial(per_anchor, anchors=count, convert=lambda values, name: integers(values, np.uint64, name))
    return AnchorColumns(
        rows=count,
        embeddings=embeddings,
        views=each,
        combine=combine,
        ids=ids,
        labels=labels,
        has_label=has_label,
        groups=groups,
        has_group=has_group,
        positive_scores=per_anchor(positive_scores, count, floats, "positive_scores"),
        positive_ids=id_lists(positive_ids, parameter="positive_ids"),
        denied_ids=id_lists(denied_ids, parameter="denied_ids"),
    )
