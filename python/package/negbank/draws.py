"""How negatives are drawn; one or more go to `Bank.sample`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias

from .errors import InvalidArgument
from .filters import Filters
from .scalars import real, real_or_none, whole, whole_or_none


@dataclass(frozen=True)
class Uniform:
    """`k` of the n eligible entries, every set of k equally likely, without replacement.

    log_q is -ln n; the probability that an entry is among the k is k / n. Needs no embedding of the anchor.

    Args:
        k: negatives per anchor.
        with_replacement: the k are drawn independently: k of them whenever n >= 1, perhaps some twice.
        scope: "per_anchor": each anchor draws for itself. "shared": one set for all anchors (sampled softmax), far less to
            compute and to send. It is drawn from the entries that pass the filters which don't depend on the anchor; what an
            anchor's own filters exclude is False in its row of `Negatives.mask`. Set those logits to -inf.
        filters: in place of the call's, for this draw only.
    """

    k: int
    _: KW_ONLY
    with_replacement: bool = False
    scope: Literal["per_anchor", "shared"] = "per_anchor"
    filters: Filters | None = None

    def __post_init__(self) -> None:
        whole(self.k, "k")
        _check_scope(self.scope)


@dataclass(frozen=True)
class Weighted:
    """`k` eligible entries with probability proportional to weight ** alpha: popularity (word2vec: 0.75), or importance.

    log_q is alpha ln w - ln sum(w ** alpha) over the anchor's eligible set, exact whatever the filters. Entries of weight 0 are
    never drawn; what is missing for their sake is counted as "weight". Needs no embedding of the anchor.

    Args:
        k: negatives per anchor.
        alpha: the exponent, -4 to 4.
        without_replacement: draws no entry twice; by default draws are independent, k of them whenever one can be drawn.
            log_q is then of the first draw, and the probability that an entry is among the k is
            1 - exp(-exp(log_q - kappa)), with the anchor's `info.kappa`.
        scope: as `Uniform`'s. Of a shared set log_q is what it is among the entries that the set could have left to the anchor.
        filters: in place of the call's, for this draw only.
    """

    k: int
    _: KW_ONLY
    alpha: float = 1.0
    without_replacement: bool = False
    scope: Literal["per_anchor", "shared"] = "per_anchor"
    filters: Filters | None = None

    def __post_init__(self) -> None:
        whole(self.k, "k")
        real(self.alpha, "alpha")
        _check_scope(self.scope)


@dataclass(frozen=True)
class Balanced:
    """`k` times a label, each label of the anchor's eligible set equally likely, then one of its eligible entries.

    log_q is -ln L - ln n_label. Entries without a label are of no class and are left out, of `info.n` too. Needs no embedding
    of the anchor.

    Args:
        k: negatives per anchor.
        without_replacement: as `Weighted`'s.
        scope: as `Weighted`'s.
        filters: in place of the call's, for this draw only.
    """

    k: int
    _: KW_ONLY
    without_replacement: bool = False
    scope: Literal["per_anchor", "shared"] = "per_anchor"
    filters: Filters | None = None

    def __post_init__(self) -> None:
        whole(self.k, "k")
        _check_scope(self.scope)


@dataclass(frozen=True)
class Nearest:
    """Hard negatives: eligible entries ranked by score against the anchor, highest first, ties by id.

    In this order: filters, score rules, rank, skip, window, choose. Scores are the bank's metric: cosine, dot product, or
    minus the squared distance.

    Args:
        k: negatives per anchor.
        skip: leaves out that many first ranks (likely false negatives).
        window: ranks considered after the skip, at least k; default k. It matters to "uniform" and "softmax" only.
        choose: "top" takes the first k: deterministic, so log_q is NaN. "uniform" takes k of the window at random, without
            replacement: log_q is -ln of the ranks in the window. "softmax" draws k of the window with replacement, an entry
            of score s with probability proportional to exp(beta s): log_q is beta s - `info.log_partition`.
        beta: inverse temperature of "softmax", any finite number.
        without_replacement: "softmax" draws no entry twice; log_q is then of the first draw, and the probability that an
            entry is among the k is 1 - exp(-exp(log_q - kappa)), with the anchor's `info.kappa`.
        candidates: cuts to that many top ranks *before* the score rules, as sentence-transformers does; default: no cut.
        min_score, max_score: keep scores s with min_score <= s <= max_score.
        max_positive_fraction: f in (0, 1]: keep s <= p - |p| (1 - f), where p is the smallest score of the anchor's
            positives (NV-Retriever uses 0.95). Needs `positive_scores` or `positive_ids`, as the next two do.
        margin: keep s <= p - margin.
        within: keep s > p - within; with margin=0 the semi-hard band of FaceNet.
        count_exact: also count the entries that pass the filters, `info.n`, and then the score rules, `info.n_scored`. Costs a
            whole scan.
        accuracy: whether the graph of a large keyed bank may answer, which can miss entries that a scan finds: "exact": never;
            "approximate": where it is cheaper; default: "approximate", but "exact" in a call with a seed. `info.plans` tells
            which it was.
        ef: entries that a walk through the graph keeps; more find more and take longer; default twice the ranks,
            at least 64; three times once rows have moved; eight times, at least 256, with own labels left out; more in banks of
            more than 262,144 entries; dot banks: four times that.
        plan: "scan", "graph" or "posting_list", whatever it costs: to see what a plan does.
        filters: in place of the call's, for this draw only.
    """

    k: int
    _: KW_ONLY
    skip: int = 0
    window: int | None = None
    choose: Literal["top", "uniform", "softmax"] = "top"
    beta: float | None = None
    without_replacement: bool = False
    candidates: int | None = None
    min_score: float | None = None
    max_score: float | None = None
    max_positive_fraction: float | None = None
    margin: float | None = None
    within: float | None = None
    count_exact: bool = False
    accuracy: Literal["exact", "approximate"] | None = None
    ef: int | None = None
    plan: Literal["scan", "graph", "posting_list"] | None = None
    filters: Filters | None = None

    def __post_init__(self) -> None:
        whole(self.k, "k")
        whole(self.skip, "skip")
        whole_or_none(self.window, "window")
        whole_or_none(self.candidates, "candidates")
        whole_or_none(self.ef, "ef")
        if (self.choose == "softmax") != (self.beta is not None):
            raise InvalidArgument.of("beta", 'is needed by choose="softmax", and by nothing else')
        real_or_none(self.beta, "beta")
        _check_rules(self)


@dataclass(frozen=True)
class Softmax:
    """`k` of the *whole* eligible set with probability proportional to exp(beta s), s an entry's score (HCL; NegativeCache).

    log_q is beta s - `info.log_partition`, over everything that filters and score rules leave, found by an exact scan. HCL's
    server-drawn form: beta is HCL's beta over the loss temperature. In banks beyond the server's `limits.max_scored_entries` it
    is over the `limits.softmax_candidates` (4,096) nearest of each anchor, and `info.candidates` says so.

    Args:
        k: negatives per anchor.
        beta: inverse temperature, any finite number.
        without_replacement: as `Weighted`'s.
        min_score, max_score, max_positive_fraction, margin, within: as `Nearest`'s: what they leave out has probability 0.
        filters: in place of the call's, for this draw only.
    """

    k: int
    _: KW_ONLY
    beta: float
    without_replacement: bool = False
    min_score: float | None = None
    max_score: float | None = None
    max_positive_fraction: float | None = None
    margin: float | None = None
    within: float | None = None
    filters: Filters | None = None

    def __post_init__(self) -> None:
        whole(self.k, "k")
        real(self.beta, "beta")
        _check_rules(self)


@dataclass(frozen=True)
class Band:
    """`k` entries uniformly from a percentile band of the anchor's own scores (ring sampling, Wu et al. 2020).

    Of the n entries that filters and score rules leave, ranked from the farthest, rank 0, to the nearest, those of
    floor(lo n) <= rank < max(floor(lo n) + 1, ceil(hi n)): at least one, if there is any. log_q is -ln `info.n_band`. Found by
    an exact scan, as `Softmax`.

    Args:
        k: negatives per anchor.
        lo: the share of the entries that are too far, 0 to below 1.
        hi: the share that are not too near, `lo` to 1.
        with_replacement: the k are drawn independently; by default they are different, min(k, n_band) of them.
        min_score, max_score, max_positive_fraction, margin, within: as `Nearest`'s, before ranks are counted.
        filters: in place of the call's, for this draw only.
    """

    k: int
    lo: float
    hi: float
    _: KW_ONLY
    with_replacement: bool = False
    min_score: float | None = None
    max_score: float | None = None
    max_positive_fraction: float | None = None
    margin: float | None = None
    within: float | None = None
    filters: Filters | None = None

    def __post_init__(self) -> None:
        whole(self.k, "k")
        real(self.lo, "lo")
        real(self.hi, "hi")
        _check_rules(self)


Draw: TypeAlias = Uniform | Weighted | Balanced | Nearest | Softmax | Band


def is_shared(draw: Draw) -> bool:
    """Whether it is one set for all anchors."""
    return isinstance(draw, (Uniform, Weighted, Balanced)) and draw.scope == "shared"


def _check_rules(draw: Nearest | Softmax | Band) -> None:
    for rule in ("min_score", "max_score", "max_positive_fraction", "margin", "within"):
        real_or_none(getattr(draw, rule), rule)


def _check_scope(scope: str) -> None:
    if scope not in ("per_anchor", "shared"):
        raise InvalidArgument.of("scope", f'{scope!r} is none: give "per_anchor" or "shared"')
