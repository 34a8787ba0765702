"""A relay before a server, that can lose an answer."""

from __future__ import annotations

import contextlib
import socket
import threading

DATA, HEADERS, RST_STREAM = 0, 1, 3


class Relay:
    """Passes bytes both ways between its own port and the server's."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._armed = threading.Event()
        self._open: list[_Pair] = []
        self.cuts = 0
        self.resets = threading.Event()
        """Set once the client has reset a stream: it gave a call up."""
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def cut_after_next_answer(self) -> None:
        """Once the next request has been answered, closes the connection instead of passing the answer on."""
        self._armed.set()

    def cut_all(self) -> None:
        """Ends every connection, whatever is on its way."""
        cut, self._open = self._open, []
        self.cuts += len(cut)
        for pair in cut:
            pair.end()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                pair = _Pair(near, socket.create_connection(("127.0.0.1", self._server)))
                self._open.append(pair)
                asked = threading.Event()
                threading.Thread(target=self._forward, args=(pair, asked), daemon=True).start()
                threading.Thread(target=self._back, args=(pair, asked), daemon=True).start()

    def _forward(self, pair: _Pair, asked: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := pair.near.recv(1 << 16):
                pair.far.sendall(data)
                kinds = _kinds(data)
                if self._armed.is_set() and kinds & {DATA, HEADERS}:
                    asked.set()
                if RST_STREAM in kinds:
                    self.resets.set()
        pair.left()

    def _back(self, pair: _Pair, asked: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := pair.far.recv(1 << 16):
                if asked.is_set() and _kinds(data) & {DATA, HEADERS}:
                    self._armed.clear()
                    self.cuts += 1
                    break
                pair.near.sendall(data)
        pair.left()


class _Pair:
    """A connection and its continuation, which two threads pass on.

    They are closed by the last thread that leaves: another may be about to read a socket, and once that is closed it would read
    from whatever gets its number next.
    """

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self._lock = threading.Lock()
        self._threads = 2

    def end(self) -> None:
        """Ends both ways, whatever is on its way."""
        with self._lock:
            self._shut_down()

    def left(self) -> None:
        """A thread passes nothing on any more."""
        with self._lock:
            self._shut_down()
            self._threads -= 1
            if self._threads == 0:
                self.near.close()
                self.far.close()

    def _shut_down(self) -> None:
        for one in (self.near, self.far):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _kinds(frames: bytes) -> set[int]:
    """Kinds of the HTTP/2 frames that begin here."""
    kinds = set()
    while len(frames) >= 9:
        kinds.add(frames[3])
        frames = frames[9 + int.from_bytes(frames[:3], "big") :]
    return kinds
