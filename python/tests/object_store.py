"""An S3-compatible object store in a process of its own, and a way to it that can end."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time

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

    def objects(self) -> list[str]:
        """Names of the objects in the bucket."""
        return [found["Key"] for found in self._s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def unfinished(self) -> int:
        """Uploads that were begun and not ended."""
        return len(self._s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


class Way:
    """Passes bytes on to a port until as many as it was given were sent there; from then on nobody answers."""

    def __init__(self, port: int, most: int) -> None:
        self._port, self._left = port, most
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
                target.sendall(data)
        for one in (self._listener, *self._open) if self.ended else (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
