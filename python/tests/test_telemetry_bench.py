"""`python -m telemetry_bench`: its client, what it concludes from what, and the whole of it, in seconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server_process import ServerProcess

sys.path.append(str(Path(__file__).parents[1]))

from telemetry_bench import __main__ as bench  # noqa: E402
from telemetry_bench.connection import CONNECTION_WINDOW, Connection  # noqa: E402
from telemetry_bench.evidence import LOOKS, Evidence, may_miss, neighbours  # noqa: E402
from telemetry_bench.loads import LOADS, PATH  # noqa: E402
from telemetry_bench.readings import ARMS, Readings  # noqa: E402
from telemetry_bench.serving import Arm  # noqa: E402


@pytest.fixture(scope="module")
def arm() -> Iterator[Arm]:
    arm = Arm()
    arm.fill()
    yield arm
    arm.stop()


def test_the_client_makes_all_calls_and_reads_all_answers(arm: Arm) -> None:
    small, batches = LOADS["small_calls"], LOADS["batches"]
    connection = arm.connect(small)
    # Each message once, whatever is in flight.
    once = [connection.press(64, in_flight)[1] for in_flight in (1, 16, 64)]
    assert once[0] > 64 * 8 * small.negatives
    assert once == [once[0]] * 3
    connection = arm.connect(batches)
    took, answered = connection.press(12, batches.in_flight)
    assert answered > 2 * CONNECTION_WINDOW
    assert took > 0
    assert connection.press(1, 4)[1] > 0


def test_what_is_refused_is_no_answer(server: ServerProcess) -> None:
    # They name a bank that is not there.
    connection = Connection(server.address, PATH, LOADS["small_calls"].messages())
    assert connection.press(20, 4)[1] == 0
    connection.close()


def test_cpu_time_is_the_servers(arm: Arm) -> None:
    connection = arm.connect(LOADS["batches"])
    before = arm.cpu_seconds()
    connection.press(8, 4)
    used = arm.cpu_seconds() - before
    assert used > 0
    assert before + used < 1e6


def session(costs: dict[str, float], rng: np.random.Generator, rounds: int = 40) -> Readings:
    """Rounds whose speed wanders, by a tenth a round, under servers that differ by half a percent, all with their costs."""
    readings = Readings(calls=10)
    own = {name: costs.get(name, 0.0) + rng.normal(0, 0.005) for name in ARMS}
    drift = np.cumsum(rng.normal(0, 0.1, rounds))
    for at in drift:
        took = {name: float(np.exp(at + own[name] + rng.standard_t(3) * 0.05)) for name in ARMS}
        readings.add(took, {name: 1.5 * seconds for name, seconds in took.items()})
    return readings


def ended(costs: dict[str, float], seed: int, rounds: int = 40) -> tuple[str, int]:
    """The verdict of a run, and after how many sessions."""
    rng, evidence = np.random.default_rng(seed), Evidence()
    for number in range(1, max(LOOKS) + 1):
        evidence.sessions.append(session(costs, rng, rounds))
        if number in LOOKS and evidence.verdict() != "not shown":
            break
    return evidence.verdict(), len(evidence.sessions)


def test_what_is_plain_is_told_soon_and_what_is_not_is_not() -> None:
    assert ended({}, 1) == ("shown", 6)
    verdict, sessions = ended({"traced": 0.015}, 1)
    assert verdict == "shown"
    assert sessions > 6
    assert ended({"traced": 0.08}, 1) == ("false", 6)
    assert ended({"with": 0.08}, 1) == ("false", 6)
    assert ended({"traced": -np.log(0.97)}, 1) == ("not shown", 24)
    # Equal servers that differ so much tell that the measurement is wrong.
    assert ended({"control": 0.08}, 1) == ("not shown", 24)


def test_a_run_errs_no_more_often_than_it_says() -> None:
    # Of servers that cost exactly what is allowed one in twenty may be told to cost more, or to cost less.
    verdicts = [ended({"with": -np.log(0.97)}, seed, rounds=6)[0] for seed in range(60)]
    assert verdicts.count("not shown") >= 55


def test_neighbours_and_looks() -> None:
    assert neighbours([1.0, -1.0, 1.0, -1.0]) == -0.75
    assert neighbours([2.0, 2.0, 2.0]) == 0.0
    assert sum(LOOKS.values()) == pytest.approx(0.05)
    # A run that ends before a look spends what that look would have.
    assert [may_miss(sessions) for sessions in (2, 6, 7, 24)] == [0.005, 0.005, 0.010, 0.020]


def test_what_is_done_between_slices_is_charged() -> None:
    rng = np.random.default_rng(1)
    readings = session({}, rng)
    alone, cost = readings.throughput("traced"), readings.cpu_cost("traced")
    readings.between["traced"] = 0.1 * sum(readings.seconds["traced"])
    assert readings.throughput("traced") == pytest.approx(alone - np.log(1.1))
    assert readings.untrimmed("traced") < alone
    assert readings.cpu_cost("traced") == pytest.approx(cost + np.log(1 + 0.1 / 1.5))


def test_all_of_it_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["telemetry_bench", "--sessions", "2", "--seconds", "1", "--reports", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    # Two sessions show nothing, however it comes out.
    with pytest.raises(SystemExit):
        bench.main()
    report = json.loads((tmp_path / "telemetry.json").read_text())
    assert set(report["loads"]) == set(LOADS)
    for load in report["loads"].values():
        assert load["sessions"] == 2
        assert load["rounds"] >= 2
        assert load["verdict"] in ("shown", "false", "not shown")
        assert all(load[f"{name}_rows_s"] > 0 and load[f"{name}_cpu_us_a_row"] > 0 for name in ARMS)
        for key in ("ratio", "cpu_ratio", "untrimmed_ratio", "traced_ratio", "traced_cpu_ratio", "control_ratio"):
            low, high = load[f"{key}_95"]
            assert low <= load[key] <= high
    assert report["ratio"] == report["loads"]["batches"]["ratio"]
    assert report["ratio_quartiles"][0] <= report["ratio_quartiles"][1]
    assert {"cpus", "exports", "traced_ratio_quartiles", "cpu_ratio_quartiles"} <= set(report)
