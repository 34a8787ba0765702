"""What the first of two real processes does for both, over gloo, in a group that soon gives up on a rank."""

from __future__ import annotations

from first_rank_run import RANKS, outcome_in_one_round, outcomes
from processes import in_ranks


def test_work_may_take_longer_than_the_group_waits_and_what_it_raises_all_ranks_raise() -> None:
    first, second = in_ranks(RANKS, outcomes)
    both = ["done", "done", "NotFound: no such checkpoint"]
    assert first == [*both, "ZeroDivisionError: of its own", "SystemExit: no Exception"]
    told = "RuntimeError: rank 0 failed: "
    assert second == [*both, told + "ZeroDivisionError('of its own')", told + "SystemExit('no Exception')"]


def test_the_group_gives_up_where_the_work_is_one_round() -> None:
    _, second = in_ranks(RANKS, outcome_in_one_round)
    assert "RuntimeError" in second
    assert "imed out" in second
