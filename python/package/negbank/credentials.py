"""What a client shows to its server, and whom it trusts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from .errors import InvalidArgument

# Token; authorities, own certificate and its key in PEM; the server's name.
Credentials: TypeAlias = tuple[str | None, bytes | None, bytes | None, bytes | None, str | None]


def credentials(
    token: str | None,
    ca: str | Path | None,
    certificate: str | Path | None,
    key: str | Path | None,
    server_name: str | None,
) -> Credentials:
    """The arguments of `connect`, with the files read and the token of the environment."""
    if (certificate is None) != (key is None):
        raise InvalidArgument.of("certificate" if certificate is None else "key", "is missing: a certificate goes with its key")
    token = os.environ.get("NEGBANK_TOKEN") if token is None else token
    return token or None, _read(ca, "ca"), _read(certificate, "certificate"), _read(key, "key"), server_name


def _read(file: str | Path | None, parameter: str) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as fault:
        raise InvalidArgument.of(parameter, f"cannot be read: {fault}") from fault
