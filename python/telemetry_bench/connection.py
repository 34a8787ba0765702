"""One HTTP/2 connection that keeps calls in flight and reads no more of their answers than it must."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 4, 5
# What negbank's own client asks for (src/client/session.rs).
STREAM_WINDOW, CONNECTION_WINDOW, FRAME_BYTES = 16 << 20, 32 << 20, 256 << 10
BUFFER_BYTES = 1 << 20
TIMEOUT = 30.0


class Connection:
    """A client that costs as little as it can, since it shares the machine with the server that it presses.

    It sends gRPC requests that were encoded before, in turn, each as soon as an answer has ended, and counts the bytes of the
    answers. From the outside it is a client like any other: it has windows and frames of negbank's own, and a deadline.
    """

    def __init__(self, address: str, path: str, messages: Sequence[bytes]) -> None:
        """Connects to host:port, to call `path` (as /package.Service/Method) with `messages`, in turn."""
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._first, self._later = header_blocks(address, path)
        self._bodies = [struct.pack(">BI", 0, len(message)) + message for message in messages]
        self._sent = 0
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        # Bytes in the buffer, and bytes of a DATA frame that are still to come.
        self._have = self._rest = 0
        self._unacknowledged = 0
        wanted = ((ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, STREAM_WINDOW), (MAX_FRAME_SIZE, FRAME_BYTES))
        settings = b"".join(struct.pack(">HI", *one) for one in wanted)
        window = struct.pack(">I", CONNECTION_WINDOW - 65_535)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, window))

    def close(self) -> None:
        """Closes it."""
        self._socket.close()

    def press(self, calls: int, in_flight: int) -> tuple[float, int]:
        """Makes so many calls, `in_flight` at once, with the messages that follow the last press's.

        Returns the seconds from the first request to the end of the last answer, and the bytes of messages that came; a call
        that was refused adds none.
        """
        asked, began = min(calls, in_flight), time.perf_counter()
        self._ask(asked)
        ended = received = 0
        while ended < calls:
            newly, bytes_of_data = self._receive()
            ended, received = ended + newly, received + bytes_of_data
            more = min(newly, calls - asked)
            if more:
                self._ask(more)
                asked += more
        return time.perf_counter() - began, received

    def _ask(self, calls: int) -> None:
        """Sends that many requests at once."""
        frames = []
        for number in range(self._sent, self._sent + calls):
            stream, body = 2 * number + 1, self._bodies[number % len(self._bodies)]
            frames.append(frame(HEADERS, END_HEADERS, stream, self._later if number else self._first))
            frames.append(frame(DATA, END_STREAM, stream, body))
        self._sent += calls
        self._socket.sendall(b"".join(frames))

    def _receive(self) -> tuple[int, int]:
        """Takes what there is: how many answers ended with it, and bytes of messages."""
        came = self._socket.recv_into(self._view[self._have :])
        if came == 0:
            raise ConnectionError("the server closed the connection")
        buffer, have = self._buffer, self._have + came
        at = ended = received = 0
        while True:
            if self._rest:
                taken = min(self._rest, have - at)
                at, received, self._rest = at + taken, received + taken, self._rest - taken
            if have - at < 9:
                break
            length, kind, flags = buffer[at] << 16 | buffer[at + 1] << 8 | buffer[at + 2], buffer[at + 3], buffer[at + 4]
            if kind == DATA:
                at, self._rest = at + 9, length
                continue
            if have - at < 9 + length:
                break
            if kind == HEADERS:
                ended += flags & END_STREAM
            else:
                self._control(kind, flags, bytes(buffer[at + 9 : at + 9 + length]))
            at += 9 + length
        self._have = have - at
        buffer[: self._have] = buffer[at:have]
        self._took(received)
        return ended, received

    def _took(self, received: int) -> None:
        """Opens the connection's window again, once half of it is used."""
        self._unacknowledged += received
        if self._unacknowledged >= CONNECTION_WINDOW // 2:
            self._socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unacknowledged)))
            self._unacknowledged = 0

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        """Answers what must be answered, and refuses what must not come."""
        if kind in (SETTINGS, PING) and not flags & ACK:
            self._socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        if kind in (RST_STREAM, GOAWAY):
            raise ConnectionError(f"the server ended {'a call' if kind == RST_STREAM else 'the connection'}: {payload!r}")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, section 4.1)."""
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def header_blocks(address: str, path: str) -> tuple[bytes, bytes]:
    """Headers of the first call, which put theirs into the connection's table, and of all later ones, which point there (HPACK,
    RFC 7541: 0x83 and 0x86 are POST and http of the static table, the newest entry of the dynamic one is 62)."""
    headers = {
        ":path": path,
        ":authority": address,
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-timeout": f"{TIMEOUT:.0f}S",
        "user-agent": "telemetry_bench",
    }
    literal = b"".join(b"\x40" + text(name) + text(value) for name, value in headers.items())
    indexed = bytes(0x80 | 62 + age for age in reversed(range(len(headers))))
    return b"\x83\x86" + literal, b"\x83\x86" + indexed


def text(value: str) -> bytes:
    """A string of at most 126 bytes, as HPACK has it."""
    encoded = value.encode("ascii")
    if len(encoded) > 126:
        raise ValueError(f"{value!r} is longer than 126 bytes")
    return bytes([len(encoded)]) + encoded
