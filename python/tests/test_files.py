"""`negbank import` and `export`: files that numpy and safetensors read and write, and a real server."""

from __future__ import annotations

import json
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import negbank
from server_process import ServerProcess, binary

WITHIN = 120.0
PRESENT = ("ids", "labels", "has_label", "groups", "has_group", "weights", "steps")


def ran(server: ServerProcess, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(binary()), *map(str, arguments), "--address", server.address]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN)


def done(server: ServerProcess, *arguments: str | Path) -> str:
    finished = ran(server, *arguments)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def refused(server: ServerProcess, *arguments: str | Path) -> str:
    finished = ran(server, *arguments)
    assert finished.returncode == 1, finished.stdout
    assert finished.stderr.rsplit("\n", 2)[-2].startswith("negbank: "), finished.stderr
    return finished.stderr


def filled(client: negbank.Client, name: str, rng: np.random.Generator, **settings: object) -> negbank.Bank:
    """A bank whose entries have and lack columns, of several steps."""
    bank = client.create_bank(name, dim=6, **settings)  # type: ignore[arg-type]
    for step in (3, 1, 2, 2):
        ids = rng.choice(10_000, 500, replace=False)
        rows = rng.standard_normal((500, 6), dtype=np.float32)
        labels = np.ma.masked_array(ids % 7, ids % 3 == 0)
        groups = np.ma.masked_array(ids // 2, ids % 5 == 0)
        bank.write(ids, rows, labels=labels, groups=groups, weights=(ids % 9).astype(np.float32), step=step)
    return bank


def by_id(path: Path) -> dict[str, np.ndarray]:
    """A file's columns, ordered by id."""
    columns = load_file(path)
    order = np.argsort(columns["ids"], kind="stable")
    return {name: column[order] for name, column in columns.items() if name != "stamps"}


def test_what_is_exported_is_what_was_written(
    server: ServerProcess, client: negbank.Client, name: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    bank = filled(client, name, rng, metric="dot", momentum=0.0)
    path = tmp_path / "bank.safetensors"
    told = done(server, "export", name, path)
    entries = bank.info().entries
    assert re.fullmatch(rf"{entries} rows of bank {re.escape(name)} in [\d.]+ s: {re.escape(str(path))}\n", told), told
    columns = load_file(path)
    held = bank.fetch(columns["ids"])
    np.testing.assert_array_equal(columns["embeddings"], held.embeddings)
    np.testing.assert_array_equal(columns["steps"], held.steps)
    np.testing.assert_array_equal(columns["weights"], columns["ids"] % 9)
    np.testing.assert_array_equal(columns["has_label"], columns["ids"] % 3 != 0)
    np.testing.assert_array_equal(columns["labels"][columns["has_label"] > 0], (columns["ids"] % 7)[columns["has_label"] > 0])
    np.testing.assert_array_equal(columns["has_group"], columns["ids"] % 5 != 0)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_bank_goes_through_a_file_unchanged(
    server: ServerProcess, client: negbank.Client, name: str, rng: np.random.Generator, tmp_path: Path, dtype: str
) -> None:
    filled(client, name, rng, metric="dot", momentum=0.0, dtype=dtype)
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    done(server, "export", name, first)
    client.delete_bank(name)
    client.create_bank(name, dim=6, metric="dot", dtype=dtype, momentum=0.0)  # type: ignore[arg-type]
    done(server, "import", name, first)
    done(server, "export", name, second)
    if dtype == "bfloat16":
        # numpy has none, so the files are compared as bytes, which stand in the order of the scan.
        first, second = tmp_path / "a32.safetensors", tmp_path / "b32.safetensors"
        done(server, "export", name, first, "--encoding", "f32")
        done(server, "import", name, tmp_path / "b.safetensors")
        done(server, "export", name, second, "--encoding", "f32")
    before, after = by_id(first), by_id(second)
    assert before.keys() == after.keys() == {"embeddings", *PRESENT}
    for column, values in before.items():
        np.testing.assert_array_equal(values, after[column], column)


def test_a_queue_keeps_its_order(
    server: ServerProcess, client: negbank.Client, name: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    bank = client.create_bank(name, dim=4, kind="queue", capacity=300, metric="l2", shards=4)
    for step in range(1, 6):
        bank.enqueue(rng.standard_normal((100, 4), dtype=np.float32), step=step)
    done(server, "export", name, tmp_path / "queue.safetensors")
    columns = load_file(tmp_path / "queue.safetensors")
    order = np.argsort(columns["stamps"])
    shuffled = rng.permutation(300)
    save_file({name: column[shuffled] for name, column in columns.items()}, tmp_path / "shuffled.safetensors")
    client.delete_bank(name)
    done(server, "import", name, tmp_path / "shuffled.safetensors", "--create", "--queue", "300", "--metric", "l2")
    done(server, "export", name, tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    later = np.argsort(again["stamps"])
    for column in ("ids", "embeddings", "steps", "weights"):
        np.testing.assert_array_equal(columns[column][order], again[column][later], column)


def test_numpy_files(
    server: ServerProcess, client: negbank.Client, name: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    rows = rng.standard_normal((1_000, 5))
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "x.labels.npy", np.arange(1_000, dtype=np.int32) % 10)
    np.save(tmp_path / "other.npy", np.arange(1_000) + 7)
    finished = ran(
        server,
        "import",
        name,
        tmp_path / "x.npy",
        "--ids",
        tmp_path / "other.npy",
        "--create",
        "--metric",
        "dot",
        "--step",
        "9",
    )
    assert finished.returncode == 0, finished.stderr
    assert f"labels: {tmp_path / 'x.labels.npy'}" in finished.stderr, "what lies beside it is taken, and said"
    held = client.bank(name).fetch(np.arange(1_000) + 7)
    np.testing.assert_array_equal(held.embeddings, rows.astype(np.float32))
    np.testing.assert_array_equal(held.labels, np.arange(1_000) % 10)
    assert set(held.steps) == {9}
    done(server, "export", name, tmp_path / "out.npy")
    ids = np.load(tmp_path / "out.ids.npy")
    order = np.argsort(ids)
    np.testing.assert_array_equal(ids[order], np.arange(1_000) + 7)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy", mmap_mode="r")[order], rows.astype(np.float32))
    np.testing.assert_array_equal(np.load(tmp_path / "out.labels.npy")[order], np.arange(1_000) % 10)
    assert not (tmp_path / "out.groups.npy").exists(), "no entry has one"
    # What another bank left beside it would be taken for this one's columns.
    np.save(tmp_path / "out.groups.npy", np.arange(1_000))
    (tmp_path / "out.npy").unlink()
    assert "--replace" in refused(server, "export", name, tmp_path / "out.npy")
    done(server, "export", name, tmp_path / "out.npy", "--replace")
    assert not (tmp_path / "out.groups.npy").exists()
    # Rows of a keyed bank without ids are numbered.
    client.delete_bank(name)
    (tmp_path / "x.labels.npy").unlink()
    assert "1000 entries" in done(server, "import", name, tmp_path / "x.npy", "--create")
    np.testing.assert_array_equal(client.bank(name).fetch([999]).found, [True])


def test_files_that_are_none_change_nothing(
    server: ServerProcess, client: negbank.Client, name: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    client.create_bank(name, dim=5)
    rows = rng.standard_normal((100, 5), dtype=np.float32)
    good = tmp_path / "good.safetensors"
    save_file({"embeddings": rows}, good)
    content = good.read_bytes()
    header = json.dumps({"embeddings": {"dtype": "F32", "shape": [100, 5], "data_offsets": [0, 1 << 60]}}).encode()

    def written(suffix: str, data: bytes) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}{suffix}"
        path.write_bytes(data)
        return path

    def saved(array: np.ndarray) -> Path:
        path = written(".npy", b"")
        np.save(path, array)
        return path

    def tensors(**columns: np.ndarray) -> Path:
        path = written(".safetensors", b"")
        save_file(columns, path)
        return path

    cases = {
        written(".txt", b"1"): ".safetensors and .npy",
        tmp_path / "missing.npy": "No such file",
        written(".npy", b""): "no .npy file",
        written(".npy", b"\x93NUMPY\x01\x00\xff\xff{"): "cut short",
        saved(rows[:, 0]): "a matrix of N rows is wanted",
        saved(np.asfortranarray(rows)): "ascontiguousarray",
        saved(rows.astype(">f4")): "little-endian",
        saved(rows.astype(np.complex64)): "<c8",
        saved(rows.astype(np.int64)): "not a type of floats",
        saved(rows[:, :3]): "of dimension 5",
        saved(np.full((10, 5), np.nan, np.float32)): "finite",
        written(".safetensors", b"x" * 7): "no safetensors file",
        written(".safetensors", struct.pack("<Q", 1 << 62)): "no safetensors file",
        written(".safetensors", content[: len(content) // 2]): "more than its",
        written(".safetensors", struct.pack("<Q", len(header)) + header): "are not the bytes of its shape",
        tensors(rows=rows): 'no tensor "embeddings"',
        tensors(embeddings=rows, ids=np.arange(99)): "99 rows",
        tensors(embeddings=rows, ids=np.arange(100) - 1): "below 0",
        tensors(embeddings=rows, ids=np.arange(100.0)): "not a type of whole numbers",
        tensors(embeddings=rows, labels=np.arange(200).reshape(100, 2)): "does not fit",
    }
    for path, says in cases.items():
        complaint = refused(server, "import", name, path)
        assert says in complaint, f"{path.name}: {complaint}"
    assert client.bank(name).info().sequence == 0
    assert "--create" in refused(server, "import", f"{name}-2", good)
    assert "queue" in refused(server, "import", f"{name}-2", good, "--create", "--queue", "9", "--momentum", "0.5")
    client.delete_bank(f"{name}-2")
    done(server, "import", name, good)
    assert "--replace" in refused(server, "export", name, good)
    assert good.read_bytes() == content
    assert "bf16" in refused(server, "export", name, tmp_path / "half.npy", "--encoding", "bf16")
    assert "no-such-bank" in refused(server, "export", "no-such-bank", tmp_path / "none.npy")
    assert "none.npy" not in " ".join(path.name for path in tmp_path.iterdir())
    done(server, "export", name, good, "--replace")
    assert by_id(good)["embeddings"].shape == (100, 5)


def limited(server: ServerProcess, resource: str, limit: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """As `ran`, with a limit of the system's on what the process may use."""
    program = (
        "import os, resource, sys;"
        f"resource.setrlimit(resource.{resource}, ({limit}, {limit}));"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, str(binary()), *map(str, arguments), "--address", server.address]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN)


def contents(folder: Path) -> dict[str, bytes]:
    """What the files of a folder hold."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("file", ["x.npy", "x.safetensors"])
def test_an_export_that_fails_leaves_the_old_one_whole(
    server: ServerProcess, client: negbank.Client, name: str, rng: np.random.Generator, tmp_path: Path, file: str
) -> None:
    bank = client.create_bank(name, dim=1, metric="dot")
    bank.write(np.arange(100), rng.standard_normal((100, 1), dtype=np.float32), labels=np.arange(100))
    done(server, "export", name, tmp_path / file)
    before = contents(tmp_path)
    # The embeddings, of two bytes each, fit within 8 KiB, and the ids, of eight, do not.
    bank.write(np.arange(2_000), rng.standard_normal((2_000, 1), dtype=np.float32), labels=np.arange(2_000))
    finished = limited(server, "RLIMIT_FSIZE", 8 << 10, "export", name, tmp_path / file, "--replace", "--encoding", "f16")
    assert finished.returncode == 1, finished.stdout
    assert "too large" in finished.stderr
    assert contents(tmp_path) == before
    done(server, "export", name, tmp_path / file, "--replace")
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path) != before


def test_an_export_that_is_interrupted_leaves_no_files_of_its_own(own_server: ServerProcess, tmp_path: Path) -> None:
    client, path = negbank.connect(own_server.address), tmp_path / "x.npy"
    bank = client.create_bank("large", dim=256, metric="dot")
    bank.write([1], np.ones((1, 256), np.float32))
    done(own_server, "export", "large", path)
    before = contents(tmp_path)
    for start in range(0, 60_000, 10_000):
        bank.write(np.arange(start, start + 10_000), np.ones((10_000, 256), np.float32))
    command = [str(binary()), "export", "large", str(path), "--replace", "--address", own_server.address]
    export = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        give_up = time.monotonic() + WITHIN
        while not list(tmp_path.glob("*.partial")):
            assert time.monotonic() < give_up
            assert export.poll() is None
        own_server.suspend()
        export.send_signal(signal.SIGINT)
        _, complaint = export.communicate(timeout=WITHIN)
    finally:
        own_server.resume()
        export.kill()
    assert (export.returncode, "interrupted" in complaint) == (1, True), complaint
    assert contents(tmp_path) == before


def test_a_file_larger_than_the_memory_goes_both_ways(own_server: ServerProcess, tmp_path: Path) -> None:
    """A million rows of 305 MiB go through a process whose own memory, 256 MiB at most, does not hold one copy of them."""
    rows, dim = 1_000_000, 80
    path = tmp_path / "large.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    for start in range(0, rows, 50_000):
        array[start : start + 50_000] = np.random.default_rng(start).standard_normal((50_000, dim), dtype=np.float32)
    array.flush()
    limit = 256 << 20

    def bounded(*arguments: str | Path) -> None:
        finished = limited(own_server, "RLIMIT_DATA", limit, *arguments)
        assert finished.returncode == 0, finished.stderr

    assert path.stat().st_size > limit
    bounded("import", "large", path, "--create", "--metric", "dot")
    bounded("export", "large", tmp_path / "back.npy")
    ids = np.load(tmp_path / "back.ids.npy")
    assert ids.size == rows
    back = np.load(tmp_path / "back.npy", mmap_mode="r")
    sample = np.random.default_rng(1).choice(rows, 2_000, replace=False)
    np.testing.assert_array_equal(back[sample], array[ids[sample]])
    (tmp_path / "back.npy").unlink()
    client, tensors = negbank.connect(own_server.address), tmp_path / "large.safetensors"
    bounded("export", "large", tensors)
    assert tensors.stat().st_size > limit
    client.delete_bank("large")
    bounded("import", "again", tensors, "--create", "--metric", "dot")
    assert client.bank("again").info().entries == rows
    np.testing.assert_array_equal(client.bank("again").fetch(sample).embeddings, array[sample])
