"""`negbank bank` and `negbank config`: the real binary, against a real server."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tomllib

import negbank
from server_process import REPOSITORY, ServerProcess, binary

PROTO = (REPOSITORY / "proto" / "negbank" / "v1" / "bank.proto").read_text()
WITHIN = 60.0


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, check=False, timeout=WITHIN)


def commands_of(server: ServerProcess) -> Callable[..., str]:
    def done(*arguments: str) -> str:
        answered = ran("bank", *arguments, "--address", server.address)
        assert answered.returncode == 0, answered.stderr
        return answered.stdout

    return done


def fields(message: str) -> set[str]:
    """The names of the fields of a message."""
    [body] = re.findall(rf"^message {message} {{\n(.*?)^}}", PROTO, re.S | re.M)
    return set(re.findall(r"^  (?:(?:optional|repeated) )?\w+ (\w+) = \d+;", body, re.M))


def test_banks_are_made_listed_shown_and_deleted(own_server: ServerProcess) -> None:
    done = commands_of(own_server)
    assert done("list").split() == ["BANK", "KIND", "DIM", "METRIC", "DTYPE", "DURABILITY", "ENTRIES", "SEQUENCE", "STEP"]
    keyed = done("create", "pets", "--dim", "4", "--metric", "dot", "--dtype", "bf16", "--momentum", "0.25", "--shards", "2")
    told = dict(re.split(r"  +", line, maxsplit=1) for line in keyed.splitlines())
    assert (told["dim"], told["momentum"], told["shards"], told["capacity"]) == ("4 of bf16, dot", "0.25", "2", "unbounded")
    info = negbank.connect(own_server.address).bank("pets").info()
    assert (info.kind, info.metric, info.momentum, info.shards) == ("keyed", "dot", 0.25, 2)
    done("create", "seen", "--dim", "2", "--queue", "3", "--durability", "memory")
    queue = negbank.connect(own_server.address).bank("seen")
    queue.enqueue([[1, 0]] * 5, step=9)
    rows = [line.split() for line in done("list").splitlines()[1:]]
    assert rows == [
        ["pets", "keyed", "4", "dot", "bf16", "memory", "0", "0", "-"],
        ["seen", "queue", "2", "cosine", "f32", "memory", "3", "1", "9"],
    ]
    assert re.search(r"^capacity +3$", done("show", "seen"), re.M)
    assert done("delete", "seen") == "bank seen is deleted, which held 3 entries\n"
    assert [bank.name for bank in negbank.connect(own_server.address).list_banks()] == ["pets"]


def test_programs_are_told_all_that_the_message_has(own_server: ServerProcess) -> None:
    done = commands_of(own_server)
    assert json.loads(done("list", "--json")) == []
    done("create", "pets", "--dim", "2", "--metric", "l2", "--dtype", "f16", "--momentum", "0.3", "--shards", "2")
    done("create", "seen", "--dim", "2", "--queue", "3", "--durability", "memory")
    client = negbank.connect(own_server.address)
    client.bank("seen").enqueue([[1, 0]] * 5, step=9)
    pets, seen = json.loads(done("list", "--json"))
    assert (pets, seen) == (json.loads(done("show", "pets", "--json")), json.loads(done("show", "seen", "--json")))

    assert pets.keys() == seen.keys() == fields("Bank")
    assert pets["index"].keys() == fields("Index")
    assert (pets["index"]["state"], pets["index"]["generation"]) == ("scan", None)
    told = {"name": "pets", "kind": "keyed", "metric": "l2", "dtype": "f16", "momentum": 0.3, "capacity": 0, "shards": 2}
    assert told.items() <= pets.items()
    told = {"kind": "queue", "metric": "cosine", "dtype": "f32", "durability": "memory", "momentum": 0, "capacity": 3}
    told |= {"entries": 3, "sequence": 1, "step": 9, "labels": 0, "stages": []}
    told |= {"damage": None, "lost_after": None, "recovering": None}
    assert told.items() <= seen.items()

    pending = client.bank("pets").write_async([1], [[1.0, 0.0]], stage=negbank.Stage(7, 0, 3))
    give_up = time.monotonic() + WITHIN
    while not (stages := json.loads(done("show", "pets", "--json"))["stages"]):
        assert time.monotonic() < give_up
    assert stages == [{"step": 7, "micro_batch": 0, "world_size": 3, "missing_ranks": [1, 2]}]
    assert stages[0].keys() == fields("OpenStage")
    pending.cancel()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "none"], '"none"'),
        (["delete", "none"], '"none"'),
        (["create", "a/b", "--dim", "2"], "a/b"),
        (["create", "x", "--dim", "0"], "dim"),
        (["create", "x", "--dim", "2", "--queue", "5", "--momentum", "0.5"], "--momentum"),
        (["create", "x", "--dim", "2", "--durability", "always"], "durability.dir"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_done(own_server: ServerProcess, arguments: list[str], says: str) -> None:
    refused = ran("bank", *arguments, "--address", own_server.address)
    assert refused.returncode != 0
    assert says in refused.stderr
    assert negbank.connect(own_server.address).list_banks() == []


def test_the_settings_are_printed_as_a_file_that_sets_them(tmp_path: Path) -> None:
    odd = tmp_path / 'a "folder" of mine'
    given = ["--set", f"durability.dir={odd}", "--set", "limits.max_k=77", "--set", "index.enabled=false"]
    printed = ran("config", *given).stdout
    table = tomllib.loads(printed)
    assert (table["durability"]["dir"], table["limits"]["max_k"], table["index"]["enabled"]) == (str(odd), 77, False)
    file = tmp_path / "negbank.toml"
    file.write_text(printed)
    assert tomllib.loads(ran("config", "--config", str(file)).stdout) == table
