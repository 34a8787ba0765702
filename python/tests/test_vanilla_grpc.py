"""The service without this package: protoc's own Python code and grpcio, over TCP and over a Unix socket."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import negbank
from server_process import REPOSITORY, ServerProcess

DIM = 8
LITTLE = np.dtype("<f4")


class Stubs(NamedTuple):
    """Generated messages and the stubs of one channel."""

    bank: Any
    sampling: Any
    banks: Any
    samples: Any


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """The modules that protoc makes of the proto files."""
    out = tmp_path_factory.mktemp("generated")
    protos = [str(path) for path in sorted((REPOSITORY / "proto").glob("negbank/v1/*.proto"))]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{REPOSITORY / 'proto'}"]
    subprocess.run([*command, f"--python_out={out}", f"--grpc_python_out={out}", *protos], check=True)
    # protoc names its modules after the proto package, `negbank.v1`; whoever uses them has no package of ours beside them.
    negbank.__path__.append(str(out / "negbank"))
    names = ("bank_pb2", "sampling_pb2", "bank_pb2_grpc", "sampling_pb2_grpc")
    return tuple(importlib.import_module(f"negbank.v1.{name}") for name in names)


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A server on both transports."""
    path = tmp_path_factory.mktemp("socket") / "negbank.sock"
    process = ServerProcess(f"server.unix_socket={path}")
    yield process, path
    process.stop()


@pytest.fixture(params=["tcp", "unix"])
def stubs(request: pytest.FixtureRequest, generated: tuple[Any, ...], listening: tuple[ServerProcess, Path]) -> Iterator[Stubs]:
    """Stubs over one transport; the banks that a test leaves are deleted."""
    server, path = listening
    target = f"unix:{path}" if request.param == "unix" else server.address
    bank, sampling, bank_grpc, sampling_grpc = generated
    with grpc.insecure_channel(target) as channel:
        stubs = Stubs(bank, sampling, bank_grpc.BanksStub(channel), sampling_grpc.SamplingStub(channel))
        yield stubs
        for there in stubs.banks.ListBanks(bank.ListBanksRequest(), timeout=10).banks:
            stubs.banks.DeleteBank(bank.DeleteBankRequest(name=there.name), timeout=10)


def filled(stubs: Stubs, rows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A bank `docs` of that many rows, labelled by parity; its embeddings."""
    x = np.random.default_rng(5).standard_normal((rows, DIM)).astype(LITTLE)
    stubs.banks.CreateBank(stubs.bank.CreateBankRequest(name="docs", dim=DIM, metric=stubs.bank.METRIC_DOT), timeout=10)
    request = stubs.bank.WriteRequest(
        bank="docs",
        embeddings=stubs.bank.Matrix(data=x.tobytes(), dim=DIM),
        ids=range(100, 100 + rows),
        labels=[row % 2 for row in range(rows)],
        step=3,
    )
    answer = stubs.banks.Write(request, timeout=10)
    assert (answer.inserted, answer.sequence, len(answer.position)) == (rows, 1, 16)
    return x


def matrix(message: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(message.data, LITTLE).reshape(-1, message.dim)


def test_sampled_rows_are_those_that_were_written(stubs: Stubs) -> None:
    x = filled(stubs, 50)
    anchors = x[:4]
    request = stubs.sampling.SampleRequest(
        bank="docs",
        anchors=stubs.sampling.Anchors(embeddings=stubs.bank.Matrix(data=anchors.tobytes()), ids=range(100, 104)),
        draws=[
            stubs.sampling.Draw(k=5, nearest=stubs.sampling.Nearest()),
            stubs.sampling.Draw(k=3, uniform=stubs.sampling.Uniform()),
        ],
        seed=9,
    )
    answer = stubs.samples.Sample(request, timeout=10)
    rows, ids = matrix(answer.rows.embeddings), np.array(answer.rows.ids)
    np.testing.assert_array_equal(rows, x[ids - 100])
    nearest, uniform = answer.draws
    picked = np.array(nearest.indices).reshape(4, 5)
    scores = np.einsum("bd,bkd->bk", anchors, rows[picked])
    np.testing.assert_allclose(np.array(nearest.scores).reshape(4, 5), scores, rtol=1e-5)
    expected = anchors @ x.T
    expected[np.arange(4), np.arange(4)] = -np.inf
    np.testing.assert_array_equal(ids[picked] - 100, np.argsort(-expected, axis=1)[:, :5])
    assert list(uniform.counts) == [3] * 4
    assert list(uniform.n) == [49] * 4
    np.testing.assert_allclose(uniform.log_q, -np.log(49), rtol=1e-6)
    assert (answer.seed, answer.reproducible) == (9, True)
    assert stubs.samples.Sample(request, timeout=10) == answer


def test_fetched_and_scanned_rows_are_those_that_were_written(stubs: Stubs) -> None:
    x = filled(stubs, 50)
    fetched = stubs.banks.Fetch(stubs.bank.FetchRequest(bank="docs", ids=[149, 7, 100]), timeout=10)
    assert fetched.found == b"\x01\x00\x01"
    np.testing.assert_array_equal(matrix(fetched.rows.embeddings), x[[49, 0]])
    assert (list(fetched.rows.labels), list(fetched.rows.steps)) == ([1, 0], [3, 3])

    chunks = list(stubs.banks.Scan(stubs.bank.ScanRequest(bank="docs", chunk_rows=20), timeout=10))
    assert [len(chunk.stamps) for chunk in chunks] == [20, 20, 10]
    assert chunks[0].whole
    assert (chunks[-1].last, chunks[-1].consistent, chunks[-1].entries) == (True, True, 50)
    np.testing.assert_array_equal(np.concatenate([matrix(chunk.rows.embeddings) for chunk in chunks]), x)
    assert [number for chunk in chunks for number in chunk.rows.ids] == list(range(100, 150))

    stubs.banks.Remove(stubs.bank.RemoveRequest(bank="docs", ids=[101]), timeout=10)
    since = stubs.bank.ScanRequest(bank="docs", since=chunks[-1].position)
    (changes,) = stubs.banks.Scan(since, timeout=10)
    assert (list(changes.gone), len(changes.stamps), changes.whole) == ([chunks[0].stamps[1]], 0, False)


def test_a_cancelled_scan_ends(stubs: Stubs) -> None:
    filled(stubs, 50)
    scan = stubs.banks.Scan(stubs.bank.ScanRequest(bank="docs", chunk_rows=1), timeout=10)
    assert next(scan).whole
    scan.cancel()
    with pytest.raises(grpc.RpcError) as ended:
        list(scan)
    assert ended.value.code() == grpc.StatusCode.CANCELLED
    assert stubs.banks.GetBank(stubs.bank.GetBankRequest(name="docs"), timeout=10).entries == 50


def test_refusals_name_their_fields(stubs: Stubs) -> None:
    filled(stubs, 2)
    bad = np.array([[1.0] * DIM, [np.nan] * DIM], LITTLE)
    request = stubs.bank.WriteRequest(bank="docs", embeddings=stubs.bank.Matrix(data=bad.tobytes()), ids=[1, 2])
    with pytest.raises(grpc.RpcError) as refused:
        stubs.banks.Write(request, timeout=10)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(refused.value)
    details = error_details_pb2.BadRequest()
    assert status is not None
    assert status.details[0].Unpack(details)
    assert [violation.field for violation in details.field_violations] == ["embeddings[1]"]
    assert "NaN" in details.field_violations[0].description

    with pytest.raises(grpc.RpcError) as missing:
        next(stubs.banks.Scan(stubs.bank.ScanRequest(bank="nope"), timeout=10))
    assert missing.value.code() == grpc.StatusCode.NOT_FOUND
    assert "there are docs" in missing.value.details()


def test_what_has_no_room_now_says_when_to_come_back_and_what_never_has_says_nothing_of_it(generated: tuple[Any, ...]) -> None:
    bank, sampling, bank_grpc, sampling_grpc = generated
    server = ServerProcess("compute.queue=1", "compute.threads=1", "limits.max_stages=1")

    def staged(step: int, rank: int) -> Any:
        stage = bank.Stage(step=step, rank=rank, world_size=2)
        return bank.WriteRequest(bank="busy", ids=[1], embeddings=bank.Matrix(values=[1, 0]), stage=stage)

    try:
        with grpc.insecure_channel(server.address) as channel:
            banks = bank_grpc.BanksStub(channel)
            banks.CreateBank(bank.CreateBankRequest(name="busy", dim=2), timeout=10)
            waiting = banks.Write.future(staged(1, 0), timeout=60)
            while not banks.GetBank(bank.GetBankRequest(name="busy"), timeout=10).stages:
                time.sleep(0.01)
            with pytest.raises(grpc.RpcError) as busy:
                banks.Write(staged(2, 0), timeout=10)
            many = sampling.SampleRequest(
                bank="busy",
                anchors=sampling.Anchors(rows=10_000),
                draws=[sampling.Draw(k=1, uniform=sampling.Uniform())],
            )
            with pytest.raises(grpc.RpcError) as never:
                sampling_grpc.SamplingStub(channel).Sample(many, timeout=10)
            assert banks.Write(staged(1, 1), timeout=10).position == waiting.result(timeout=60).position
        assert busy.value.code() == never.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        status, retry = rpc_status.from_call(busy.value), error_details_pb2.RetryInfo()
        assert status is not None
        assert status.details[0].Unpack(retry)
        assert 0 < retry.retry_delay.ToTimedelta().total_seconds() < 10
        assert "trying again won't help" in never.value.details()
        assert rpc_status.from_call(never.value) is None
    finally:
        server.stop()
