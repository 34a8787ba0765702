"""Requests and answers that are too large."""

from __future__ import annotations

import numpy as np
import pytest

import negbank
from server_process import ServerProcess


def test_an_answer_beyond_the_servers_limit_names_the_setting(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1024)
    bank.write(range(1_000), np.ones((1_000, 1024)))
    with pytest.raises(negbank.InvalidArgument, match=r"limits\.max_answer_bytes"):
        bank.sample(16_384, negbank.Uniform(500))


def test_an_answer_beyond_the_clients_limit_names_the_setting(server: ServerProcess, client: negbank.Client, name: str) -> None:
    client.create_bank(name, dim=64).write(range(100), np.ones((100, 64)))
    small = negbank.connect(server.address, max_message_bytes=4_000).bank(name)
    with pytest.raises(negbank.ResourceExhausted, match="max_message_bytes") as refused:
        small.fetch(range(100))
    assert refused.value.retry_after is None
    assert small.fetch(range(10)).found.all()


def test_a_request_beyond_the_limit_is_not_sent(server: ServerProcess, client: negbank.Client, name: str) -> None:
    client.create_bank(name, dim=64)
    small = negbank.connect(server.address, max_message_bytes=4_000).bank(name)
    rows = np.ones((100, 64))
    for call in (
        lambda: small.write(range(100), rows),
        lambda: small.sample(rows, negbank.Nearest(1)),
        lambda: small.fetch(range(1_000)),
        lambda: small.remove(range(1_000)),
    ):
        with pytest.raises(negbank.InvalidArgument, match="over the limit of 4000"):
            call()
    small.write(range(10), rows[:10])
    assert small.info().sequence == 1
