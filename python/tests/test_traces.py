"""Calls are part of the trace that the training script is in."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from opentelemetry.sdk.trace import TracerProvider

import negbank
from server_process import ServerProcess


class Collector:
    """Takes spans over OTLP, and keeps them as they came."""

    def __init__(self, tls: grpc.ServerCredentials | None = None) -> None:
        self.received = b""
        self.came = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(1))
        method = {"Export": grpc.unary_unary_rpc_method_handler(self._export)}
        name = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, method),))
        any_port = "127.0.0.1:0"
        if tls is None:
            self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port(any_port)}"
        else:
            self.endpoint = f"https://localhost:{self._server.add_secure_port(any_port, tls)}"
        self._server.start()

    def _export(self, request: bytes, _: grpc.ServicerContext) -> bytes:
        self.received += request
        self.came.set()
        return b""

    def stop(self) -> None:
        self._server.stop(None).wait()


def test_a_call_carries_the_current_span_and_no_other() -> None:
    collector = Collector()
    server = ServerProcess(f"traces.endpoint={collector.endpoint}", "traces.sample_per_million=0")
    try:
        bank = negbank.connect(server.address).create_bank("traced", dim=2)
        tracer = TracerProvider().get_tracer("training")
        with tracer.start_as_current_span("step") as span:
            bank.write([1, 2], np.eye(2))
            pending = bank.sample_async(np.eye(2), negbank.Uniform(1))
        pending.result()
        bank.stalest(1)
        assert collector.came.wait(30)
        assert server.terminate() == 0
    finally:
        server.stop()
        collector.stop()
    context = span.get_span_context()
    assert context.trace_id.to_bytes(16, "big") in collector.received
    assert context.span_id.to_bytes(8, "big") in collector.received
    assert b"Banks/Write" in collector.received
    assert b"Sampling/Sample" in collector.received
    # Outside of any span, and nothing begins one.
    assert b"Stalest" not in collector.received


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_collector_may_speak_tls(*, is_trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificate is of an authority that the system knows, or of one in SSL_CERT_FILE; no other gets a span."""
    authority = trustme.CA()
    (authority if is_trusted else trustme.CA()).cert_pem.write_to_path(tmp_path / "ca.crt")
    own = authority.issue_cert("localhost")
    chain = b"".join(certificate.bytes() for certificate in own.cert_chain_pems)
    collector = Collector(grpc.ssl_server_credentials([(own.private_key_pem.bytes(), chain)]))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    server = ServerProcess(f"traces.endpoint={collector.endpoint}", "traces.sample_per_million=1000000")
    try:
        negbank.connect(server.address).create_bank("traced", dim=2)
        # Spans that are left are sent while it ends.
        assert server.terminate() == 0
    finally:
        server.stop()
        collector.stop()
    assert (b"Banks/CreateBank" in collector.received) == is_trusted
