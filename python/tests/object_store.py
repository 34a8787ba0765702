"""An S3-compatible object store in a process of its own, a way to it that can end, and a gate before it that can be shut."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import boto3

from server_process import free_port

BUCKET = "training"
STARTS_WITHIN = 60.0
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}


class ObjectStore:
    """moto's server with one empty bucket."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + STARTS_WITHIN
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                break
            if time.monotonic() > give_up:
                self.stop()
                raise RuntimeError(f"moto is not serving within {STARTS_WITHIN} s")
            time.sleep(0.05)
        self._s3 = boto3.client(
            "s3", endpoint_url=self.address, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
        )
        self._s3.create_bucket(Bucket=BUCKET)

    def objects(self, prefix: str = "") -> list[str]:
        """Names of the objects in the bucket."""
        return [found["Key"] for found in self._s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]

    def unfinished(self, prefix: str = "") -> list[str]:
        """Names of uploads that were begun and not ended."""
        uploads = self._s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return [found["Key"] for found in uploads if found["Key"].startswith(prefix)]

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


class Way:
    """Passes bytes on to a port until as many as it was given were sent there; from then on nobody answers.

    What comes back comes at no more than `rate` bytes a second over all connections together.
    """

    def __init__(self, port: int, most: int, rate: float | None = None) -> None:
        self._port, self._left, self._rate = port, most, rate
        self._lock, self._free = threading.Lock(), 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._left <= 0

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._open += [near, far]
                threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if counted:
                    self._left -= len(data)
                    if self.ended:
                        break
                elif self._rate is not None:
                    with self._lock:
                        now = time.monotonic()
                        self._free = max(self._free, now) + len(data) / self._rate
                        wait = self._free - now
                    time.sleep(wait)
                target.sendall(data)
        for one in (self._listener, *self._open) if self.ended else (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Gate:
    """Passes requests on to a port up to one that it was told of: from that on none gets an answer, until it is opened."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._at: Callable[[str, str], bool] = lambda _method, _path: False
        self._is_done = self._is_once = self._is_shut = False
        self._lock = threading.Lock()
        self.cuts = 0
        """Requests that got no answer."""
        gate = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _handle(self) -> None:
                gate._handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def shut_at(self, at: Callable[[str, str], bool], *, is_done: bool, is_once: bool = False) -> None:
        """Shuts at a request of that method and path, before the store hears of it or after it did it, once or for good."""
        self._at, self._is_done, self._is_once = at, is_done, is_once

    def open(self) -> None:
        """Passes everything on."""
        self._at, self._is_shut = (lambda _method, _path: False), False

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self._lock:
            is_meant = not self._is_shut and self._at(request.command, request.path)
            is_cut, is_passed = is_meant or self._is_shut, not self._is_shut and (self._is_done or not is_meant)
            self._is_shut = is_cut and not self._is_once
            self.cuts += is_cut
            if is_meant and self._is_once:
                self._at = lambda _method, _path: False
        if is_passed:
            store = http.client.HTTPConnection("127.0.0.1", self._port)
            store.request(request.command, request.path, body, dict(request.headers.items()))
            answer = store.getresponse()
            content = answer.read()
            store.close()
        if is_cut or not is_passed:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        request.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        request.send_header("Content-Length", length or "0")
        request.end_headers()
        request.wfile.write(content)
