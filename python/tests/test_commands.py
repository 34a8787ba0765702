"""`negbank sample`, `top` and `doctor`: the real binary, looking at a real server."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trustme

import negbank
from server_process import ServerProcess, binary

WITHIN = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    process = ServerProcess("http.listen=127.0.0.1:0")
    bank = negbank.connect(process.address).create_bank("pets", dim=2)
    rows: list[list[float]] = [[1, 0], [0.98, 0.2], [0.9, 0.44], [0, 1], [-1, 0]]
    bank.write([1, 2, 3, 4, 5], rows, labels=[0, 0, 0, 1, 2], groups=[10, 10, 11, 12, 13], step=120)
    yield process
    process.stop()


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, check=False, timeout=WITHIN)


def at(server: ServerProcess) -> list[str]:
    return ["--address", server.address, "--probes", str(server.probes)]


def test_sample_shows_what_was_served_and_why(server: ServerProcess) -> None:
    shown = ran("sample", "pets", "--address", server.address, "--id", "1", "--k", "3", "--exclude-same-label", "--seed", "7")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == (
        "bank pets: 5 entries x 2, sequence 1, step 120\n"
        "\n"
        "anchor: entry 1, label 0, group 10, step 120\n"
        "draw nearest: 2 served of n = 2, found by scan\n"
        "      id  label  group  step    score  log_q\n"
        "   1   4      1     12   120   0.0000      -\n"
        "   2   5      2     13   120  -1.0000      -\n"
        "kept back: 1 self, 1 same group, 1 same label; missing: 1 too few\n"
        "\n"
        "seed 7 draws the same again until the bank changes\n"
    )


def test_sample_takes_vectors_mixtures_and_an_anchor_of_its_own(server: ServerProcess) -> None:
    address = ["--address", server.address]
    draws = ["--draw", "uniform:k=2", "--draw", "nearest:k=1,count_exact,min_score=0.5"]
    mixture = ran("sample", "pets", *address, "--vector", "-0.6,0.8", "--label", "1", "--seed", "1", *draws)
    assert mixture.returncode == 0, mixture.stderr
    assert mixture.stdout.count("anchor: the vector given, label 1") == 2
    assert "draw uniform:k=2: 2 served of n = 5" in mixture.stdout
    assert "-1.6094" in mixture.stdout, "ln 1/5"
    assert "1 served of n = 5, of which 2 pass the score rules" in mixture.stdout
    at_random = ran("sample", "pets", *address)
    assert re.search(r"anchor: entry [1-5], label [0-2], group 1[0-3], step 120", at_random.stdout), at_random


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cats"], 'there is no bank "cats"'),
        (["pets", "--id", "99"], "has no entry 99"),
        (["pets", "--draw", "farthest"], "there is no strategy"),
        (["pets", "--draw", "uniform:shared"], "leave `shared` out"),
        (["pets", "--vector", "1,2,3"], "dimension 2"),
    ],
)
def test_sample_says_what_was_wrong(server: ServerProcess, arguments: list[str], says: str) -> None:
    refused = ran("sample", *arguments, "--address", server.address)
    assert refused.returncode != 0
    assert says in refused.stderr


def test_doctor_finds_a_sound_server_sound(server: ServerProcess) -> None:
    examined = ran("doctor", "--strict", *at(server))
    assert examined.returncode == 0, examined
    for found in ("probes", "clock", "limits", "load", "calls", "access", "bank pets"):
        assert f"ok    {found}" in examined.stdout
    assert "5 entries, sequence 1, step 120" in examined.stdout
    assert "banks 1 of 1,024, entries of the largest bank 5 of 100,000,000" in examined.stdout
    assert ran("doctor", "--ready", *at(server)).stdout == ""


def test_doctor_tells_what_is_amiss() -> None:
    server = ServerProcess("http.listen=127.0.0.1:0")
    try:
        bank = negbank.connect(server.address, timeout=30).create_bank("staged", dim=2)
        pending = bank.write_async([1], [[1.0, 0.0]], stage=negbank.Stage(7, 0, 3))
        give_up = time.monotonic() + WITHIN
        found = "WARN  bank staged  the staged write of step 7 waits for ranks 1, 2 of 3"
        while found not in (seen := ran("doctor", *at(server))).stdout:
            assert time.monotonic() < give_up, seen
        assert seen.returncode == 0, "a warning is no failure"
        assert ran("doctor", "--strict", *at(server)).returncode != 0
        pending.cancel()
    finally:
        server.stop()
    gone = ran("doctor", *at(server))
    assert gone.returncode != 0
    assert {"FAIL  probes", "FAIL  metrics", "FAIL  calls"} <= {line[:13].strip() for line in gone.stdout.splitlines()}
    assert "the server's http.listen" in ran("doctor", "--ready", *at(server)).stderr


def test_doctor_tells_of_a_limit_before_it_is_reached(tmp_path: Path) -> None:
    server = ServerProcess("http.listen=127.0.0.1:0", "limits.max_banks=1", f"durability.dir={tmp_path / 'kept'}")
    try:
        bank = negbank.connect(server.address).create_bank("only", dim=2)
        bank.write([1, 2], [[1.0, 0.0], [0.0, 1.0]])
        examined = ran("doctor", *at(server))
        assert "WARN  limits" in examined.stdout
        assert "banks 1 of 1; then none is created: limits.max_banks" in examined.stdout
        assert "disk " in examined.stdout
        assert ran("doctor", "--strict", *at(server)).returncode != 0
    finally:
        server.stop()


def test_doctor_knows_certificates_and_what_they_are_for(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3, hours=1)
    mine = authority.issue_cert("localhost", not_after=soon)
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.issue_cert("trainer@localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    settings = {"certificate": "server.pem", "key": "server.pem", "client_ca": "ca.crt"}
    server = ServerProcess("http.listen=127.0.0.1:0", *(f"tls.{name}={tmp_path / file}" for name, file in settings.items()))
    try:
        files = {"--ca": "ca.crt", "--certificate": "own.pem", "--key": "own.pem"}
        shown = [part for flag, file in files.items() for part in (flag, str(tmp_path / file))]
        assert server.probes
        examined = ran("doctor", "--address", f"https://localhost:{server.port}", "--probes", server.probes, *shown)
        assert examined.returncode == 0, examined.stdout
        assert "tls.certificate ends in 3 days" in examined.stdout
        assert "tls.client_ca goes on for" in examined.stdout
        assert "ok    access" in examined.stdout
        assert "need a client certificate" in examined.stdout
    finally:
        server.stop()


def test_commands_say_which_flag_is_missing(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    token = ran("token", "--subject", "me", "--role", "read", "--append", str(tokens)).stdout.strip()
    server = ServerProcess("http.listen=127.0.0.1:0", f"auth.tokens={tokens}")
    try:
        for command in (["sample", "pets", "--address", server.address], ["top", *at(server)]):
            assert "--token, or NEGBANK_TOKEN" in ran(*command).stderr, command
        assert "--token, or NEGBANK_TOKEN" in ran("doctor", *at(server)).stdout
        unprobed = ran("top", "--once", "--probes", "127.0.0.1:1", "--token", token, "--address", server.address)
        assert "give --probes" in unprobed.stderr
    finally:
        server.stop()


def test_doctor_is_not_deceived_by_another_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def answer() -> None:
            for _ in range(2):
                connection, _ = stranger.accept()
                connection.sendall(b"220 mail here\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1024)
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        examined = ran("doctor", "--address", "127.0.0.1:1", "--probes", address)
    assert examined.returncode != 0
    assert "is no negbank's probes" in examined.stdout


def test_top_prints_a_table_where_there_is_no_terminal(server: ServerProcess) -> None:
    shown = ran("top", "--interval", "0.2", *at(server))
    assert shown.returncode == 0, shown.stderr
    heading, empty, columns, row = shown.stdout.splitlines()
    assert heading.startswith("1 banks, 5 entries | calls/s ")
    assert not empty
    cells = dict(zip(columns.split(), row.replace(" KiB", "KiB").split(), strict=True))
    assert [cells[name] for name in ("BANK", "KIND", "ENTRIES", "STEP", "STATE")] == ["pets", "keyed", "5", "120", "scan"]


def test_what_people_read_programs_can_read_too(server: ServerProcess) -> None:
    ask = ["--address", server.address, "--id", "1", "--k", "3", "--exclude-same-label", "--seed", "7"]
    sampled = json.loads(ran("sample", "pets", *ask, "--json").stdout)
    [draw] = sampled.pop("draws")
    assert sampled == {
        "bank": "pets", "dim": 2, "entries": 5, "sequence": 1, "step": 120, "seed": 7, "reproducible": True,
    }  # fmt: skip
    [of_anchor] = draw["anchors"]
    assert (draw["draw"], draw["plan"], draw["missing"]) == ("nearest", "scan", {"too few": 1})
    assert draw["kept_back"] == {"self": 1, "same group": 1, "same label": 1}
    assert of_anchor["anchor"] == {"id": 1, "label": 0, "group": 10, "step": 120}
    assert (of_anchor["n"], of_anchor["n_scored"]) == (2, None)
    first, second = of_anchor["picks"]
    assert first == {"id": 4, "label": 1, "group": 12, "step": 120, "score": 0.0, "log_q": None}
    assert (second["id"], second["score"]) == (5, -1.0)

    seen = json.loads(ran("top", "--interval", "0.2", "--json", *at(server)).stdout)
    [bank] = seen["banks"]
    assert (bank["bank"], bank["entries"], bank["step"], bank["state"], bank["damage"]) == ("pets", 5, 120, "scan", None)
    assert bank["rows_bytes"] >= 5 * 2 * 4
    assert seen["calls_per_second"] > 0, "its own looks are calls"

    findings = json.loads(ran("doctor", "--json", *at(server)).stdout)
    assert {"verdict": "ok", "check": "probes", "said": "ready: calls are taken"} in findings


def test_a_server_without_probes_is_looked_at_by_its_calls_alone(server: ServerProcess) -> None:
    alone = ["--address", server.address, "--probes", "none"]
    shown = ran("top", "--once", "--interval", "0.2", *alone)
    assert shown.returncode == 0, shown.stderr
    heading, _, columns, row = shown.stdout.splitlines()
    assert heading == "1 banks, 5 entries | without probes: what is drawn is not known"
    cells = dict(zip(columns.split(), row.split(), strict=True))
    assert [cells[name] for name in ("ENTRIES", "MEMORY", "WRITES/s", "SERVED/s")] == ["5", "-", "0", "-"]
    assert json.loads(ran("top", "--json", "--interval", "0.2", *alone).stdout)["calls_per_second"] is None
    examined = ran("doctor", "--strict", *alone)
    assert examined.returncode == 0, examined.stdout
    assert "skip  probes" in examined.stdout
    assert "ok    bank pets" in examined.stdout
    assert "asks the probes" in ran("doctor", "--ready", *alone).stderr


def test_top_follows_a_server_until_q(server: ServerProcess) -> None:
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [str(binary()), "top", "--interval", "0.1", *at(server)]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | {"TERM": "xterm"})
    os.close(terminal)
    shown = ""

    def read_until(wanted: str) -> None:
        nonlocal shown
        give_up = time.monotonic() + WITHIN
        while wanted not in shown:
            assert time.monotonic() < give_up, f"{wanted} is not in {shown!r}"
            if select.select([screen], [], [], 1.0)[0]:
                shown += os.read(screen, 65_536).decode(errors="replace")

    try:
        read_until("pets")
        read_until("SERVED/s")
        bank = negbank.connect(server.address).create_bank("seen-later", dim=2)
        bank.write([1], np.ones((1, 2)))
        read_until("seen-later")
        os.write(screen, b"q")
        read_until("\x1b[?1049l")  # the terminal as it was
        assert process.wait(WITHIN) == 0
    finally:
        process.kill()
        process.wait()
        os.close(screen)
        negbank.connect(server.address).delete_bank("seen-later")
