"""Mining as sentence-transformers does it, from a bank."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..bank import Bank
from ..errors import InvalidArgument
from ..writes import Integers
from .candidates import Candidates, Scores, Shelf
from .formats import FORMATS
from .pairs import Pairs
from .rules import Rules, default_range_max

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, SentenceTransformer


def mine_hard_negatives(
    dataset: Dataset,
    model: SentenceTransformer,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: list[str] | None = None,
    cross_encoder: CrossEncoder | None = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: Literal["random", "top"] = "top",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    include_positives: bool = False,
    output_format: Literal["triplet", "n-tuple", "labeled-pair", "labeled-list"] = "triplet",
    output_scores: bool = False,
    batch_size: int = 32,
    faiss_batch_size: int = 16384,
    use_faiss: bool = False,
    use_multi_process: list[str] | bool = False,
    verbose: bool = True,
    cache_folder: str | None = None,
    as_triplets: bool | None = None,
    margin: float | None = None,
    *,
    bank: Bank,
    corpus_ids: Integers | None = None,
    seed: int | None = None,
) -> Dataset:
    """Adds hard negatives to a data set of (anchor, positive) pairs: `sentence_transformers.util.mine_hard_negatives`, with
    a bank in place of the index that it builds.

    The parameters up to `margin` are the original's, mean what they do there, and have its defaults. Of those:

    - `use_faiss` and `faiss_batch_size` change nothing: the bank searches, exactly.
    - `cache_folder` is refused: the bank keeps the texts' embeddings, see `corpus_ids`.
    - `as_triplets` and `margin` are the original's old names of `output_format` and `absolute_margin`.

    Args:
        bank: a keyed cosine bank of the model's dimension.
        corpus_ids: the bank's entries of the texts, in the order of `corpus` (without one, of the data set's positives), when
            it holds them already: nothing is encoded but the queries, and negatives are mined from the entries as they stand,
            which a training run may be moving meanwhile. A text may have several entries; entries of the bank that are
            not named are passed over. Default: every text is encoded and written, text i of the corpus (then of the positives
            that it lacks), repetitions left out, under id i, in place of what was there.
        seed: for sampling_strategy="random": the same seed draws the same. The original draws so after `random.seed(seed)`.

    Returns:
        The data set, in the format asked for, as the original's: a query's rows come together, and queries with too few
        negatives have fewer rows, or none ("n-tuple").

    Raises:
        InvalidArgument: a parameter is out of range, or the bank is of another kind.
        FailedPrecondition: with `corpus_ids`, the bank lacks a positive.
    """
    try:
        from datasets import Dataset
    except ImportError as fault:
        raise ImportError("mine_hard_negatives makes a datasets.Dataset: pip install datasets") from fault
    _check(bank, cache_folder)
    absolute_margin = absolute_margin if margin is None else margin
    if as_triplets is not None:
        output_format = "triplet" if as_triplets else "n-tuple"
    if include_positives:
        output_format = "n-tuple"
    if output_format not in FORMATS:
        raise InvalidArgument.of("output_format", f"{output_format!r} is none: give one of {', '.join(FORMATS)}")
    pairs = Pairs.of(dataset, anchor_column_name, positive_column_name, corpus)
    if range_max is None:
        refusing = (absolute_margin, relative_margin, max_score, None if cross_encoder is None else min_score)
        may_refuse = any(rule is not None for rule in refusing)
        range_max = default_range_max(pairs, range_min, num_negatives, may_refuse=may_refuse)
    rules = Rules(
        range_min, range_max, max_score, min_score, absolute_margin, relative_margin, num_negatives, sampling_strategy
    )

    pool = _pool(model, use_multi_process)
    options: dict[str, Any] = {
        "pool": pool,
        "batch_size": batch_size,
        "normalize_embeddings": True,
        "convert_to_numpy": True,
        "show_progress_bar": verbose,
    }
    try:
        if corpus_ids is None:
            texts = model.encode_document(pairs.texts, prompt_name=corpus_prompt_name, prompt=corpus_prompt, **options)
            shelf = Shelf.filled(bank, texts)
        else:
            shelf = Shelf.of(bank, corpus_ids, list(dataset[pairs.columns[1]]) if corpus is None else corpus, pairs.texts)
        queries = model.encode_query(pairs.queries, prompt_name=query_prompt_name, prompt=query_prompt, **options)
    finally:
        if pool is not None:
            model.stop_multi_process_pool(pool)

    found = shelf.nearest(queries, range_max + pairs.most)
    positive_scores: Scores = np.einsum("pd,pd->p", queries[pairs.owner], shelf.rows(pairs.right))
    if cross_encoder is not None and rules.any_score:
        positive_scores = _rescored(cross_encoder, pairs, found, batch_size, use_multi_process)
    if not include_positives:
        for query, those in enumerate(pairs.positives):
            found.scores[query, np.isin(found.texts[query], those)] = -np.inf
    rules.apply(found, pairs, positive_scores)
    taken = rules.take(found, random.Random(seed))
    if verbose:
        _report(pairs, rules, taken, positive_scores)
    return Dataset.from_dict(FORMATS[output_format](pairs, taken, positive_scores, output_scores))


def _check(bank: Bank, cache_folder: str | None) -> None:
    metric = bank.info().metric
    if bank.kind != "keyed" or metric != "cosine":
        raise InvalidArgument.of("bank", f"must be a keyed cosine bank; {bank.name!r} is {bank.kind}, {metric}")
    if cache_folder is not None:
        raise InvalidArgument.of("cache_folder", "is not needed: the bank keeps the embeddings, name them by corpus_ids")


def _pool(encoder: Any, use_multi_process: list[str] | bool) -> Any:
    if not use_multi_process:
        return None
    devices = None if isinstance(use_multi_process, bool) else use_multi_process
    return encoder.start_multi_process_pool(target_devices=devices)


def _rescored(
    cross_encoder: Any, pairs: Pairs, found: Candidates, batch_size: int, use_multi_process: list[str] | bool
) -> Scores:
    """Puts the cross-encoder's scores in place of the bank's, and returns those of the positives."""
    pool = _pool(cross_encoder, use_multi_process)

    def scored(asked: list[tuple[str, str]]) -> Scores:
        scores = cross_encoder.predict(asked, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True, pool=pool)
        return np.asarray(scores, dtype=np.float32)

    try:
        query, place = np.nonzero(found.texts >= 0)
        texts = found.texts[query, place]
        found.scores[query, place] = scored([(pairs.queries[q], pairs.texts[t]) for q, t in zip(query, texts, strict=True)])
        return scored([(pairs.queries[q], pairs.texts[t]) for q, t in zip(pairs.owner, pairs.right, strict=True)])
    finally:
        if pool is not None:
            cross_encoder.stop_multi_process_pool(pool)


def _report(pairs: Pairs, rules: Rules, taken: Candidates, positive_scores: Scores) -> None:
    there = taken.scores > -np.inf
    negatives = taken.scores[there]
    print(f"{negatives.size:,} negatives for {len(pairs.queries):,} queries, of {len(pairs.texts):,} texts.")
    if negatives.size:
        print(f"Mean score: positives {positive_scores.mean():.4f}, negatives {negatives.mean():.4f}.")
    for rule, count in rules.refused.items():
        print(f"{rule}={getattr(rules, rule)} refused {count:,} candidates.")
    short = int((~there.all(axis=1)).sum())
    if short:
        print(f"{short:,} queries have fewer than {rules.num_negatives}: raise range_max, or loosen what refuses.")
