"""Data sets of hard negatives, from a bank that is served live; needs the package `datasets`.

    from negbank.mining import mine_hard_negatives

    dataset = mine_hard_negatives(dataset, model, relative_margin=0.05, bank=bank)

It takes the place of `sentence_transformers.util.mine_hard_negatives`. For negatives in a training loop, draw from the bank
itself: `bank.sample(queries, negbank.Nearest(8, max_positive_fraction=0.95), positive_ids=ids)`.
"""

from .hard_negatives import mine_hard_negatives

__all__ = ["mine_hard_negatives"]
