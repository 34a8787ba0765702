"""`mine_hard_negatives` beside sentence-transformers' own, on the same texts and with the same model."""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.util import mine_hard_negatives as original
from tokenizers import Tokenizer, models, pre_tokenizers

import negbank
from data import docstrings
from negbank.mining import mine_hard_negatives
from server_process import ServerProcess

DIM = 24
FORMATS = ["triplet", "n-tuple", "labeled-pair", "labeled-list"]
# What decides whether a candidate is kept can lie this close on both sides, and so can neighbours in a ranking: the scores are
# sums of products in other orders.
SAME_SCORE = 2e-6

RULES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "skip": {"range_min": 3, "num_negatives": 4},
    "narrow": {"range_min": 1, "range_max": 5, "num_negatives": 3, "max_score": 0.8},
    "absolute margin": {"absolute_margin": 0.1},
    "relative margin": {"relative_margin": 0.05, "num_negatives": 5, "range_min": 2},
    "scores": {"max_score": 0.7, "min_score": 0.45, "num_negatives": 6},
    "all": {"range_max": 20, "max_score": 0.9, "min_score": 0.2, "absolute_margin": 0.02, "relative_margin": 0.05},
    "positives": {"include_positives": True, "num_negatives": 6},
    "old names": {"margin": 0.05, "as_triplets": False},
    "prompts": {"query_prompt": "compute the ", "corpus_prompt_name": "parameters"},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Each summary with its body; some have another one's body as well, some texts come twice."""
    summaries, bodies = docstrings()
    summaries, bodies = summaries[:90], bodies[:90]
    more = list(range(0, 40, 7))
    summaries += [summaries[i] for i in more] + summaries[:3]
    bodies += [bodies[i + 1] for i in more] + bodies[:3]
    return Dataset.from_dict({"text": bodies, "summary": summaries, "length": [len(body) for body in bodies]})


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    """Means of random word vectors."""
    summaries, bodies = docstrings()
    words = sorted({word for text in [*summaries, *bodies] for word in text.split()})
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(["[UNK]", *words])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    weights = np.random.default_rng(5).standard_normal((len(words) + 1, DIM)).astype(np.float32)
    modules: list[torch.nn.Module] = [StaticEmbedding(tokenizer, embedding_weights=weights)]
    return SentenceTransformer(modules=modules, device="cpu", prompts={"parameters": "Parameters array_like "})


@pytest.fixture
def bank(client: negbank.Client, name: str) -> negbank.Bank:
    return client.create_bank(name, dim=DIM)


class Overlap:
    """Scores by shared words, no two texts alike: as decided as a cross-encoder, and faster."""

    def predict(self, pairs: Any, *, convert_to_tensor: bool = False, **_: Any) -> Any:
        scores = []
        for query, text in pairs:
            asked, there = set(query.split()), set(text.split())
            scores.append(len(asked & there) / len(asked | there) + zlib.crc32(text.encode()) * 1e-12)
        return torch.tensor(scores) if convert_to_tensor else np.array(scores, dtype=np.float32)


def columns(settings: dict[str, Any]) -> dict[str, Any]:
    return {"anchor_column_name": "summary", "positive_column_name": "text", "verbose": False, **settings}


def assert_same(ours: Dataset, theirs: Dataset) -> None:
    assert ours.column_names == theirs.column_names
    assert len(ours) == len(theirs) > 0
    for name in ours.column_names:
        if name in ("score", "scores"):
            for own, other in zip(ours[name], theirs[name], strict=True):
                np.testing.assert_allclose(own, other, atol=SAME_SCORE)
        else:
            assert list(ours[name]) == list(theirs[name]), name


@pytest.mark.parametrize("rules", RULES)
def test_the_same_negatives_in_every_format(
    dataset: Dataset, model: SentenceTransformer, bank: negbank.Bank, rules: str
) -> None:
    for place, output_format in enumerate(FORMATS):
        # Over the cases each format comes with scores and without.
        output_scores = (place + list(RULES).index(rules)) % 2 == 0
        settings = columns({"output_format": output_format, "output_scores": output_scores, **RULES[rules]})
        ours = mine_hard_negatives(dataset, model, **settings, bank=bank)
        assert_same(ours, original(dataset, model, **settings))


def test_fewer_texts_than_are_looked_for(dataset: Dataset, model: SentenceTransformer, bank: negbank.Bank) -> None:
    few = dataset.select(range(5))
    for output_format in FORMATS:
        settings = columns({"output_format": output_format, "num_negatives": 3, "range_max": 20, "max_score": 0.99})
        assert_same(mine_hard_negatives(few, model, **settings, bank=bank), original(few, model, **settings))


@pytest.mark.parametrize("seed", [0, 11])
def test_random_draws_are_the_original_s_after_its_seed(
    dataset: Dataset, model: SentenceTransformer, bank: negbank.Bank, seed: int
) -> None:
    settings = columns({"sampling_strategy": "random", "relative_margin": 0.05, "range_max": 30, "output_format": "n-tuple"})
    random.seed(seed)
    theirs = original(dataset, model, **settings)
    ours = mine_hard_negatives(dataset, model, **settings, bank=bank, seed=seed)
    assert_same(ours, theirs)
    other = mine_hard_negatives(dataset, model, **settings, bank=bank, seed=seed + 1)
    assert list(other["negative_1"]) != list(ours["negative_1"])


def test_a_corpus_and_a_cross_encoder(dataset: Dataset, model: SentenceTransformer, bank: negbank.Bank) -> None:
    corpus = docstrings()[1][200:500]
    for settings in ({}, {"cross_encoder": Overlap(), "absolute_margin": 0.02, "output_scores": True}):
        ours = mine_hard_negatives(dataset, model, **columns({"corpus": corpus, **settings}), bank=bank)
        theirs = original(dataset, model, **columns({"corpus": corpus, **settings}))
        assert_same(ours, theirs)
        assert set(ours["negative"]) & set(corpus[30:])


def test_a_bank_that_training_keeps_is_mined_as_it_stands(
    dataset: Dataset, model: SentenceTransformer, bank: negbank.Bank, rng: np.random.Generator
) -> None:
    """Ids of its own, two entries for a text that comes twice, entries that are no text of the data set."""
    texts = list(dataset["text"])
    ids = rng.permutation(10_000)[: len(texts)] + 500
    rows: npt.NDArray[np.float32] = model.encode_document(texts, normalize_embeddings=True)
    bank.write(ids, rows)
    bank.write(np.arange(len(rows)), rows + 0.01 * rng.standard_normal(rows.shape).astype(np.float32))
    settings = columns({"relative_margin": 0.05, "num_negatives": 4, "output_scores": True})
    ours = mine_hard_negatives(dataset, model, **settings, bank=bank, corpus_ids=ids)
    assert_same(ours, original(dataset, model, **settings))
    # An entry that moved is mined where it is now.
    hard = next(at for at, text in enumerate(texts) if text == ours["negative"][0])
    same_text = [i for i, text in zip(ids, texts, strict=True) if text == texts[hard]]
    bank.write(same_text, np.tile(-rows[hard], (len(same_text), 1)), momentum=0.0)
    moved = mine_hard_negatives(dataset, model, **settings, bank=bank, corpus_ids=ids)
    first = [
        negative
        for summary, negative in zip(moved["summary"], moved["negative"], strict=True)
        if summary == moved["summary"][0]
    ]
    assert texts[hard] not in first


def test_what_one_request_may_not_hold_is_asked_in_parts(dataset: Dataset, model: SentenceTransformer) -> None:
    """Entries that are no texts stand before the texts, so that more is searched than is wanted."""
    settings = columns({"num_negatives": 4, "output_scores": True})
    theirs = original(dataset, model, **settings)
    texts = list(dataset["text"])
    rows: npt.NDArray[np.float32] = model.encode_document(texts, normalize_embeddings=True)
    server = ServerProcess("limits.max_k=100", "limits.max_picks=1000")
    try:
        bank = negbank.connect(server.address).create_bank("deep", dim=DIM)
        bank.write(np.arange(len(rows)), rows)
        bank.write(1_000 + np.arange(len(rows)), rows)
        ids = np.arange(len(rows))
        assert_same(mine_hard_negatives(dataset, model, **settings, bank=bank, corpus_ids=ids), theirs)
        # 99 strangers before each text: the 100 nearest entries hold one.
        strangers = np.repeat(rows, 99, axis=0)
        bank.write(10_000 + np.arange(len(strangers)), strangers)
        with pytest.raises(negbank.FailedPrecondition, match="limits.max_k"):
            mine_hard_negatives(dataset, model, **settings, bank=bank, corpus_ids=ids)
        with pytest.raises(negbank.InvalidArgument, match="limits.max_k"):
            mine_hard_negatives(dataset, model, **columns({"range_max": 200}), bank=bank, corpus_ids=ids)
    finally:
        server.stop()


def test_what_can_t_be_mined_is_refused(dataset: Dataset, model: SentenceTransformer, bank: negbank.Bank, client: Any) -> None:
    wrong: list[dict[str, Any]] = [
        {"num_negatives": 0},
        {"range_min": -1},
        {"range_min": 5, "range_max": 5},
        {"range_max": 2, "num_negatives": 3},
        {"output_format": "quartet"},
        {"sampling_strategy": "best"},
        {"cache_folder": "somewhere"},
        {"corpus_ids": [1, 2, 3]},
        {"corpus_ids": [7] * len(dataset)},
        {"corpus": ["one text"], "corpus_ids": [1]},
    ]
    for settings in wrong:
        with pytest.raises(negbank.InvalidArgument):
            mine_hard_negatives(dataset, model, **columns(settings), bank=bank)
    with pytest.raises(negbank.InvalidArgument, match="empty"):
        mine_hard_negatives(dataset.select([]), model, bank=bank)
    with pytest.raises(negbank.InvalidArgument, match="column"):
        mine_hard_negatives(dataset.select_columns(["text"]), model, bank=bank)
    with pytest.raises(negbank.FailedPrecondition, match="positives"):
        mine_hard_negatives(dataset, model, **columns({}), bank=bank, corpus_ids=np.arange(len(dataset)))
    queue = client.create_bank(bank.name + "q", dim=DIM, kind="queue", capacity=10)
    with pytest.raises(negbank.InvalidArgument, match="keyed cosine"):
        mine_hard_negatives(dataset, model, bank=queue)
    client.delete_bank(queue.name)


def test_it_says_what_came_of_it(
    dataset: Dataset, model: SentenceTransformer, bank: negbank.Bank, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = columns({"relative_margin": 0.3, "range_max": 4, "verbose": True})
    mined = mine_hard_negatives(dataset, model, **settings, bank=bank)
    said = capsys.readouterr().out
    assert "relative_margin=0.3 refused" in said
    assert "queries have fewer than 3" in said
    assert len(mined) < 3 * len(dataset)
