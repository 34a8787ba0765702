"""The trainer's side, for torch: a momentum encoder, losses over served negatives, synthetic hard negatives, and a keeper that
holds the bank up with the model.

    from negbank.torch import MomentumEncoder, info_nce, similarities

    negs = bank.sample(queries, negbank.Nearest(64), positive_ids=ids)
    negative = similarities(queries, negs.embeddings[negs.indices])
    loss = info_nce((queries * keys).sum(dim=1), negative, counted=negs.mask)

Shapes: B anchors, K negatives an anchor, d floats an embedding. Losses take scores, higher is closer: `positive` [B] and
`negative` [B, K], before the temperature; `counted` bool [B, K] says which negatives take part (default: all), as padding and
false negatives must not. They return the mean over the anchors; gradients reach whatever the scores were made of. What the
server sends is detached: a stored embedding has no graph.

Half-precision scores are brought to float32, in which the losses compute. The digits that they lost before stay lost: a
bfloat16 cosine near 1 is off by up to 0.002, and exp(s / T) so by 3 % at T = 0.07 and by 20 % at T = 0.01, in the gradient
likewise (float16: an eighth of that). At low temperatures score in float32: `similarities(queries.float(), ...)`, outside of
autocast.

Import this module, not `torch` through it: negbank itself never imports torch.
"""

from .debiased import debiased, hcl
from .decoupled import dcl, dclw
from .info_nce import info_nce, nt_xent
from .inst_disc import InstDiscNCE
from .keeper import Keeper
from .live_rows import live_rows
from .mochi import mochi_mix
from .momentum_encoder import MomentumEncoder
from .sampled_softmax import sampled_softmax
from .scores import similarities
from .sup_con import sup_con
from .triplet import triplet_semi_hard

__all__ = [
    "InstDiscNCE",
    "Keeper",
    "MomentumEncoder",
    "dcl",
    "dclw",
    "debiased",
    "hcl",
    "info_nce",
    "live_rows",
    "mochi_mix",
    "nt_xent",
    "sampled_softmax",
    "similarities",
    "sup_con",
    "triplet_semi_hard",
]
