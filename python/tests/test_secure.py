"""TLS and tokens, as a trainer sees them."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

import negbank
from server_process import ServerProcess, binary


@dataclass
class Secure:
    """A server that speaks TLS, wants a client's certificate, and knows two tokens."""

    address: str
    shown: dict[str, Any]
    reader: str


def token(file: Path, role: str) -> str:
    command = [str(binary()), "token", "--subject", role, "--role", role, "--bank", "text-*", "--append", str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    authority = trustme.CA()
    server_certificate, own = authority.issue_cert("localhost"), authority.issue_cert("trainer@localhost")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    server_certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    own.private_key_and_cert_chain_pem.write_to_path(folder / "own.pem")
    tokens = folder / "tokens.toml"
    admin, reader = token(tokens, "admin"), token(tokens, "read")
    server = ServerProcess(
        f"tls.certificate={folder / 'server.pem'}",
        f"tls.key={folder / 'server.pem'}",
        f"tls.client_ca={folder / 'ca.crt'}",
        f"auth.tokens={tokens}",
    )
    shown = {"ca": folder / "ca.crt", "certificate": folder / "own.pem", "key": folder / "own.pem", "token": admin}
    try:
        yield Secure(f"https://localhost:{server.port}", shown, reader)
    finally:
        server.stop()


def test_a_trainer_that_is_known_writes_and_draws(secure: Secure) -> None:
    client = negbank.connect(secure.address, **secure.shown)
    bank = client.create_bank("text-1", dim=4)
    bank.write(range(3), np.eye(4)[:3])
    # A DataLoader's worker connects anew, with the same credentials.
    again = pickle.loads(pickle.dumps(client)).bank("text-1")
    assert again.sample(np.eye(4)[:1], negbank.Nearest(1)).ids.tolist() == [0]
    viewer = negbank.connect(secure.address, **{**secure.shown, "token": secure.reader}).bank("text-1")
    assert len(viewer.read().ids) == 3
    with pytest.raises(negbank.PermissionDenied, match="takes write"):
        viewer.write([4], np.ones((1, 4)))
    with pytest.raises(negbank.PermissionDenied, match=r"text-\*"):
        client.create_bank("images", dim=4)
    assert secure.shown["token"] not in repr(client)


def test_the_token_may_come_from_the_environment(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
    without = {**secure.shown, "token": None}
    with pytest.raises(negbank.Unauthenticated, match="authorization"):
        negbank.connect(secure.address, **without)
    monkeypatch.setenv("NEGBANK_TOKEN", secure.shown["token"])
    negbank.connect(secure.address, **without).list_banks()


def test_what_is_missing_or_wrong_is_named(secure: Secure) -> None:
    with pytest.raises(negbank.Unauthenticated, match="not known"):
        negbank.connect(secure.address, **{**secure.shown, "token": "nb_" + 64 * "0"})
    with pytest.raises(negbank.Unavailable, match="UnknownIssuer"):
        negbank.connect(secure.address, **{**secure.shown, "ca": None})
    with pytest.raises(negbank.InvalidArgument, match="https://"):
        negbank.connect(secure.address.removeprefix("https://"), **secure.shown)
    with pytest.raises(negbank.InvalidArgument, match="key"):
        negbank.connect(secure.address, **{**secure.shown, "key": None})
    with pytest.raises(negbank.InvalidArgument, match="No such file"):
        negbank.connect(secure.address, **{**secure.shown, "ca": "/nowhere.pem"})
    with pytest.raises(negbank.InvalidArgument, match="characters"):
        negbank.connect(secure.address, **{**secure.shown, "token": "a\nb"})
