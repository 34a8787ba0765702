"""Samplers: seeds call by call, states that resume, and draws a step ahead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import negbank
from relay import Relay
from server_process import ServerProcess

ROWS, DIM, BATCH = 300, 8, 12


def filled(client: negbank.Client, name: str) -> negbank.Bank:
    bank = client.create_bank(name, dim=DIM)
    bank.write(np.arange(ROWS), rows(0, ROWS), labels=np.arange(ROWS) % 7, step=0)
    return bank


def rows(step: int, count: int = BATCH) -> Any:
    return np.random.default_rng([9, step]).standard_normal((count, DIM)).astype(np.float32)


def batch(step: int) -> Any:
    return np.random.default_rng([10, step]).choice(ROWS, BATCH, replace=False)


def sampler(bank: negbank.Bank, **options: Any) -> negbank.Sampler:
    return negbank.Sampler(bank, negbank.Uniform(5), negbank.Nearest(3, window=9, choose="uniform"), **{"seed": 3, **options})


def drawn(negs: negbank.Negatives) -> list[Any]:
    return np.asarray(negs.ids)[negs.indices].tolist()  # type: ignore[no-any-return]


def trained(one: negbank.Sampler, steps: range) -> list[Any]:
    """A training run: each step draws for its batch, then writes it."""
    seen = []
    for step in steps:
        seen.append(drawn(one.sample(None, anchor_ids=batch(step))))
        one.write(rows(step + 1), ids=batch(step), step=step)
    return seen


def trained_ahead(prefetch: negbank.Prefetch[int], one: negbank.Sampler, steps: int) -> list[Any]:
    seen = []
    for _, (step, negs) in zip(range(steps), prefetch, strict=False):
        seen.append(drawn(negs))
        one.write(rows(step + 1), ids=batch(step), step=step)
    return seen


@pytest.fixture
def other(client: negbank.Client, name: str) -> Iterator[str]:
    yield name + "-2"
    client.delete_bank(name + "-2")


def test_each_call_rank_and_seed_draws_for_itself(client: negbank.Client, name: str) -> None:
    bank = filled(client, name)
    first, same = sampler(bank), sampler(bank)
    draws = [drawn(first.sample(None, anchor_ids=batch(0))) for _ in range(3)]
    assert draws[0] != draws[1] != draws[2]
    assert draws == [drawn(same.sample_async(None, anchor_ids=batch(0)).result()) for _ in range(3)]
    assert first.step == same.step == 3
    assert drawn(sampler(bank, rank=1).sample(None, anchor_ids=batch(0))) != draws[0]
    assert drawn(sampler(bank, seed=4).sample(None, anchor_ids=batch(0))) != draws[0]
    assert drawn(first.call(1, None, anchor_ids=batch(0)).result()) == draws[1]
    assert not np.isin(first.sample(None, anchor_ids=batch(0), only_labels=[2]).labels, [0, 1, 3]).any()


def test_a_resumed_run_goes_on_with_the_same_draws(client: negbank.Client, name: str, other: str) -> None:
    whole = trained(sampler(filled(client, name)), range(20))
    bank = filled(client, other)
    first = sampler(bank)
    before = trained(first, range(9))
    state = json.loads(json.dumps(first.state_dict()))
    resumed = sampler(bank, seed=0)
    resumed.load_state_dict({**state, "bank": bank.name})
    assert before + trained(resumed, range(9, 20)) == whole


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_run_that_asks_ahead_resumes_with_the_same_draws(client: negbank.Client, name: str, other: str, ahead: int) -> None:
    """Both runs take a state after nine batches; only the second one ends there and is resumed."""

    def asking(one: negbank.Sampler, first: int) -> negbank.Prefetch[int]:
        request = lambda step: {"anchors": None, "anchor_ids": batch(step)}  # noqa: E731
        return negbank.Prefetch(one, range(first, 20), request, ahead=ahead)

    one = sampler(filled(client, name))
    prefetch = asking(one, 0)
    whole = trained_ahead(prefetch, one, 9)
    prefetch.state_dict()
    whole += trained_ahead(prefetch, one, 20)
    assert len(whole) == 20

    bank = filled(client, other)
    first = sampler(bank)
    prefetch = asking(first, 0)
    before = trained_ahead(prefetch, first, 9)
    state = json.loads(json.dumps(prefetch.state_dict()))
    assert state["batches"] == state["step"] == 9
    resumed = sampler(bank)
    prefetch = asking(resumed, state["batches"])
    prefetch.load_state_dict(state)
    assert before + trained_ahead(prefetch, resumed, 20) == whole
    with pytest.raises(negbank.InvalidArgument, match="before the first batch"):
        prefetch.load_state_dict(state)


def test_asking_ahead_costs_a_step_and_says_so(client: negbank.Client, name: str) -> None:
    one = sampler(filled(client, name))
    prefetch = negbank.Prefetch(one, range(6), lambda step: {"anchors": None, "anchor_ids": batch(step)})
    ages, missed = [], []
    for step, negs in prefetch:
        assert prefetch.last is not None
        ages.append((prefetch.last.steps, prefetch.last.writes))
        missed.append(one.sequence - negs.info.sequence_last)
        assert (negs.ages >= 0).all()
        one.write(rows(step + 1), ids=batch(step), step=step)
    # Batch 0 and 1 are asked for at once; from then on each draw misses the one write of the step before its use.
    assert ages == [(0, 0)] + [(1, 1)] * 5
    assert missed == [0] + [1] * 5
    bank = filled(client, name)
    now = negbank.Prefetch(sampler(bank), range(2), lambda step: {"anchors": 4, "anchor_ids": None}, ahead=0)
    with pytest.raises(negbank.InvalidArgument):
        next(now)


def test_a_state_knows_its_bank(client: negbank.Client, name: str) -> None:
    bank = filled(client, name)
    one = sampler(bank)
    trained(one, range(2))
    state = one.state_dict()
    for wrong in ({}, {**state, "bank": "other"}, {**state, "position": "xyz"}, {**state, "seed": -1}):
        with pytest.raises(negbank.InvalidArgument):
            sampler(bank).load_state_dict(wrong)
    client.delete_bank(name)
    again = sampler(filled(client, name))
    again.load_state_dict(state)
    with pytest.raises(negbank.FailedPrecondition, match="created anew"):
        again.sample(None, anchor_ids=batch(0))
    assert again.step == 2, "a call that failed is not counted"


def test_a_server_that_went_away_fails_the_batch_and_does_not_lose_it(own_server: ServerProcess) -> None:
    with Relay(own_server.port) as relay:
        bank = filled(negbank.connect(relay.address, retries=0, timeout=10.0), "away")
        one = sampler(bank)
        prefetch = negbank.Prefetch(one, range(4), lambda step: {"anchors": None, "anchor_ids": batch(step), "timeout": 1.0})
        expected = [drawn(sampler(bank).call(step, None, anchor_ids=batch(step)).result()) for step in range(4)]
        seen = [drawn(next(prefetch)[1])]
        seen.append(drawn(next(prefetch)[1]))
        own_server.suspend()
        prefetch.state_dict()
        with pytest.raises((negbank.Unavailable, negbank.DeadlineExceeded)):
            next(prefetch)
        own_server.resume()
        seen += [drawn(negs) for _, negs in prefetch]
        assert seen == expected
