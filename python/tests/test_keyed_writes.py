"""Writing to, reading from and removing from keyed banks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import negbank


def test_what_is_written_is_fetched_in_the_order_asked_for(client: negbank.Client, name: str, rng: np.random.Generator) -> None:
    bank = client.create_bank(name, dim=8, metric="dot")
    rows = rng.standard_normal((4, 8)).astype(np.float32)
    labels, groups = [3, None, -7, 0], [None, 2**64 - 1, 0, 5]
    written = bank.write([10, 2**64 - 1, 0, 7], rows, labels=labels, groups=groups, step=41)
    assert (written.sequence, written.inserted, written.updated) == (1, 4, 0)

    entries = bank.fetch([7, 99, 2**64 - 1, 10, 0])
    assert entries.found.tolist() == [True, False, True, True, True]
    assert entries.ids.tolist() == [7, 99, 2**64 - 1, 10, 0]
    np.testing.assert_array_equal(entries.embeddings, [rows[3], np.zeros(8), rows[1], rows[0], rows[2]])
    assert entries.labels.tolist() == [0, 0, 0, 3, -7]
    assert entries.has_label.tolist() == [True, False, False, True, True]
    assert entries.groups.tolist() == [5, 0, 2**64 - 1, 0, 0]
    assert entries.has_group.tolist() == [True, False, True, False, True]
    assert entries.steps.tolist() == [41, 0, 41, 41, 41]
    dtypes = [column.dtype for column in (entries.ids, entries.embeddings, entries.labels, entries.groups, entries.steps)]
    assert dtypes == [np.uint64, np.float32, np.int64, np.uint64, np.uint64]
    assert {column.dtype for column in (entries.found, entries.has_label, entries.has_group)} == {np.dtype(bool)}
    assert entries.embeddings.flags.writeable


def test_fetching_only_absent_ids_gives_zeros_of_the_right_shape(client: negbank.Client, name: str) -> None:
    entries = client.create_bank(name, dim=6).fetch([1, 2])
    assert not entries.found.any()
    assert entries.embeddings.shape == (2, 6)
    assert not entries.embeddings.any()


def test_masked_labels_are_no_labels(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1, metric="dot")
    labels = np.ma.masked_array([4, 5, 6], mask=[False, True, False])
    bank.write([1, 2, 3], np.ones((3, 1)), labels=labels)
    entries = bank.fetch([1, 2, 3])
    assert entries.labels.tolist() == [4, 0, 6]
    assert entries.has_label.tolist() == [True, False, True]
    assert labels.data.tolist() == [4, 5, 6], "the caller's array was changed"


def test_columns_left_out_of_a_rewrite_stay_and_given_none_clears(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1, metric="dot")
    bank.write([1, 2], [[1.0], [1.0]], labels=[8, 9], groups=[3, 4])
    bank.write([1, 2], [[1.0], [1.0]], labels=[None, 5])
    entries = bank.fetch([1, 2])
    assert entries.has_label.tolist() == [False, True]
    assert entries.labels[1] == 5
    assert entries.groups.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("metric", "override", "m"), [("cosine", None, 0.5), ("dot", None, 0.5), ("cosine", 0.9, 0.9), ("l2", 0, 0)]
)
def test_a_rewrite_moves_by_momentum(
    client: negbank.Client, name: str, rng: np.random.Generator, metric: Any, override: float | None, m: float
) -> None:
    bank = client.create_bank(name, dim=16, metric=metric)
    first, second = rng.standard_normal((2, 3, 16)).astype(np.float32)

    def norm(x: Any) -> Any:
        return x / np.linalg.norm(x, axis=1, keepdims=True) if metric == "cosine" else x

    bank.write([1, 2, 3], first)
    moved = bank.write([1, 2, 3], second, momentum=override)
    assert (moved.inserted, moved.updated, moved.sequence) == (0, 3, 2)
    expected = norm(m * norm(first.astype(np.float64)) + (1 - m) * norm(second.astype(np.float64)))
    np.testing.assert_allclose(bank.fetch([1, 2, 3]).embeddings, expected, atol=1e-6)


@pytest.mark.parametrize("layout", ["f64", "f16", "fortran", "strided", "list", "read-only"])
def test_every_layout_of_floats_is_written_alike(
    client: negbank.Client, name: str, rng: np.random.Generator, layout: str
) -> None:
    bank = client.create_bank(name, dim=4, metric="dot")
    rows = rng.integers(-8, 8, (5, 4)).astype(np.float32)
    spread = np.zeros((5, 8), dtype=np.float32)
    spread[:, ::2] = rows
    frozen = rows.copy()
    frozen.flags.writeable = False
    given = {
        "f64": rows.astype(np.float64),
        "f16": rows.astype(np.float16),
        "fortran": np.asfortranarray(rows),
        "strided": spread[:, ::2],
        "list": rows.tolist(),
        "read-only": frozen,
    }[layout]
    bank.write(range(5), given)
    np.testing.assert_array_equal(bank.fetch(range(5)).embeddings, rows)


def test_removing_counts_what_was_there(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1, metric="dot")
    bank.write([1, 2, 3], np.ones((3, 1)))
    assert bank.remove([2, 99]) == 1
    assert bank.fetch([1, 2, 3]).found.tolist() == [True, False, True]
    assert bank.info().entries == 2


def test_the_bank_counts_batches_and_keeps_the_last_step(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1, metric="dot")
    bank.write([1], [[1.0]], labels=[4], groups=[9], step=100)
    bank.write([2], [[1.0]])
    info = bank.info()
    assert (info.sequence, info.step, info.entries, info.labels, info.groups) == (2, 100, 2, 1, 1)


@pytest.mark.parametrize(
    ("bad", "field", "says"),
    [
        ({"embeddings": np.ones((2, 3))}, "embeddings", "[rows, 4]"),
        ({"embeddings": np.ones(4)}, "embeddings", "[4]"),
        ({"embeddings": np.ones((2, 4), dtype=np.int64)}, "embeddings", "int64"),
        ({"embeddings": np.ones((2, 4), dtype=complex)}, "embeddings", "complex128"),
        ({"embeddings": [["a"] * 4] * 2}, "embeddings", "must be floats"),
        ({"embeddings": [[1.0, 2.0], [1.0]]}, "embeddings", "no array"),
        ({"embeddings": [[1, 2, 3, np.nan], [1, 2, 3, 4]]}, "embeddings[0]", "NaN"),
        ({"embeddings": [[1, 2, 3, 4], [1, np.inf, 3, 4]]}, "embeddings[1]", "inf"),
        ({"embeddings": np.zeros((2, 4))}, "embeddings[0]", "zero"),
        ({"embeddings": np.zeros((0, 4)), "ids": []}, "embeddings", "empty"),
        ({"ids": [1, -2]}, "ids[1]", "-2"),
        ({"ids": np.array([1, -2])}, "ids[1]", "-2"),
        ({"ids": [1.0, 2.0]}, "ids[0]", "1.0"),
        ({"ids": np.array([1.0, 2.0])}, "ids", "float64"),
        ({"ids": [1, 2**64]}, "ids[1]", "out of range"),
        ({"ids": np.array([True, False])}, "ids", "bool"),
        ({"ids": [[1, 2]]}, "ids", "(1, 2)"),
        ({"ids": [1, 2, 3]}, "ids", "3 values for 2 rows"),
        ({"labels": [1]}, "labels", "1 values for 2 rows"),
        ({"labels": [0.5, None]}, "labels[0]", "0.5"),
        ({"labels": np.array([1, 2**63], dtype=np.uint64)}, "labels[1]", "out of range"),
        ({"groups": [1, 2, 3]}, "groups", "3 values for 2 rows"),
        ({"groups": [None, -1]}, "groups[1]", "-1"),
        ({"step": -1}, "step", "-1"),
        ({"momentum": 1.5}, "momentum", "1.5"),
        ({"timeout": 0}, "timeout", "above 0"),
        ({"timeout": float("inf")}, "timeout", "inf"),
    ],
)
def test_a_bad_batch_names_the_fault_and_changes_nothing(
    client: negbank.Client, name: str, bad: dict[str, Any], field: str, says: str
) -> None:
    bank = client.create_bank(name, dim=4)
    good = {"ids": [1, 2], "embeddings": [[1, 2, 3, 4], [4, 3, 2, 1]]}
    with pytest.raises(negbank.InvalidArgument) as refused:
        bank.write(**{**good, **bad})
    faults = dict(refused.value.violations)
    assert field in faults
    assert says in faults[field]
    assert says in str(refused.value)
    assert bank.info().sequence == 0


def test_a_keyed_bank_takes_no_enqueue(client: negbank.Client, name: str) -> None:
    with pytest.raises(negbank.FailedPrecondition, match=r"keyed.*write"):
        client.create_bank(name, dim=1).enqueue([[1.0]], ids=[4])
