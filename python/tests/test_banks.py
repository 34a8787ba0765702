"""Creating, describing, listing and deleting banks."""

from __future__ import annotations

import pytest

import negbank
from server_process import ServerProcess


def test_a_keyed_bank_is_described_by_its_settings(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=12, kind="keyed", metric="l2", momentum=0.9, shards=3)
    info = bank.info()
    settings = (info.name, info.kind, info.metric, info.dim, info.capacity, info.momentum, info.shards)
    assert settings == (name, "keyed", "l2", 12, None, 0.9, 3)
    assert (info.entries, info.sequence, info.step, info.labels, info.groups) == (0, 0, None, 0, 0)
    assert info.bytes_per_entry >= 12 * 4
    assert info.peak_bytes_per_entry > info.bytes_per_entry
    assert info.peak_bytes is None
    assert (bank.name, bank.dim, bank.kind) == (name, 12, "keyed")


def test_a_queue_has_a_capacity_and_no_momentum(client: negbank.Client, name: str) -> None:
    info = client.create_bank(name, dim=4, kind="queue", metric="dot", capacity=100).info()
    assert (info.kind, info.metric, info.capacity, info.momentum) == ("queue", "dot", 100, None)
    assert info.peak_bytes == 100 * info.peak_bytes_per_entry


def test_defaults_are_a_keyed_cosine_bank_of_momentum_a_half(client: negbank.Client, name: str) -> None:
    info = client.create_bank(name, dim=4).info()
    assert (info.kind, info.metric, info.momentum, info.shards) == ("keyed", "cosine", 0.5, 8)


def test_the_same_settings_again_give_the_same_bank(client: negbank.Client, name: str) -> None:
    client.create_bank(name, dim=2).write([5], [[1.0, 0.0]])
    assert client.create_bank(name, dim=2, momentum=0.5).info().entries == 1


def test_other_settings_are_refused_and_named(client: negbank.Client, name: str) -> None:
    client.create_bank(name, dim=2)
    with pytest.raises(negbank.AlreadyExists, match="dim"):
        client.create_bank(name, dim=3)
    assert client.bank(name).dim == 2


def test_banks_are_listed_by_name_and_deleted(client: negbank.Client, name: str) -> None:
    client.create_bank(name + "-b", dim=2)
    bank = client.create_bank(name + "-a", dim=2)
    bank.write([1, 2, 3], [[1, 0], [0, 1], [1, 1]])
    listed = [info for info in client.list_banks() if info.name.startswith(name)]
    assert [info.name for info in listed] == [name + "-a", name + "-b"]
    assert listed[0] == bank.info()
    assert client.delete_bank(name + "-a") == 3
    client.delete_bank(name + "-b")
    assert not [info for info in client.list_banks() if info.name.startswith(name)]
    with pytest.raises(negbank.NotFound, match=name + "-a"):
        bank.info()


def test_an_unknown_bank_is_not_found_and_the_known_ones_are_named(client: negbank.Client, name: str) -> None:
    client.create_bank(name, dim=2)
    with pytest.raises(negbank.NotFound, match="no-such-bank") as refused:
        client.bank("no-such-bank")
    assert name in str(refused.value)
    assert isinstance(refused.value, LookupError)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"dim": 0}, "dim"),
        ({"dim": -1}, "dim"),
        ({"dim": 2.5}, "dim"),
        ({"dim": 2, "kind": "heap"}, "kind"),
        ({"dim": 2, "metric": "manhattan"}, "metric"),
        ({"dim": 2, "momentum": 1.0}, "momentum"),
        ({"dim": 2, "momentum": "half"}, "momentum"),
        ({"dim": 2, "shards": 65}, "shards"),
        ({"dim": 2, "kind": "queue"}, "capacity"),
        ({"dim": 2, "dtype": "float8"}, "dtype"),
        ({"dim": 2, "dtype": "bfloat16", "momentum": 0.99}, "momentum"),
        ({"dim": 2, "kind": "queue", "capacity": 10, "momentum": 0.5}, "momentum"),
    ],
)
def test_a_bad_setting_is_refused_by_name(client: negbank.Client, name: str, settings: dict[str, object], field: str) -> None:
    with pytest.raises(negbank.InvalidArgument) as refused:
        client.create_bank(name, **settings)  # type: ignore[arg-type]
    assert [violated for violated, _ in refused.value.violations] == [field]
    assert isinstance(refused.value, ValueError)
    with pytest.raises(negbank.NotFound):
        client.bank(name)


def test_a_full_server_says_which_limit_and_that_waiting_will_not_help() -> None:
    server = ServerProcess("limits.max_banks=1")
    try:
        client = negbank.connect(server.address)
        client.create_bank("one", dim=2)
        with pytest.raises(negbank.ResourceExhausted, match=r"limits\.max_banks") as refused:
            client.create_bank("two", dim=2)
        assert refused.value.retry_after is None
    finally:
        server.stop()
