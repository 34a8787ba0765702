"""The Grafana dashboard and the alerts: they ask for what a real server measures, and the dashboard for all of it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import promql_parser
import pytest
import trustme
import yaml
from prometheus_client.parser import text_string_to_metric_families

import negbank
from installed_tools import REPOSITORY
from server_process import ServerProcess

DASHBOARD = json.loads((REPOSITORY / "deploy" / "grafana" / "negbank.json").read_text())
ALERTS = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "alerts.yaml").read_text())
# What Prometheus adds to whatever it scrapes.
ADDED_LABELS = {"job", "instance", "le"}
OF_PROMETHEUS = {"up"}
ROWS, DIM = 1_500, 16

Labels = dict[str, set[str]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labels]:
    """The labels of each series that a busy server shows, by the series' name."""
    folder, authority = tmp_path_factory.mktemp("kept"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    tls = [f"tls.certificate={folder / 'server.pem'}", f"tls.key={folder / 'server.pem'}"]
    kept = f"durability.dir={folder / 'banks'}"
    settings = ["http.listen=127.0.0.1:0", "index.min_entries=1000", "index.cpu_percent=50", "limits.max_banks=1", kept, *tls]
    server = ServerProcess(*settings)
    try:
        client = negbank.connect(f"https://localhost:{server.port}", ca=folder / "ca.crt")
        bank = client.create_bank("busy", dim=DIM)
        with pytest.raises(negbank.ResourceExhausted):
            client.create_bank("another", dim=DIM)
        rng = np.random.default_rng(1)
        for ids, step in ((range(ROWS // 2), 7), (range(ROWS // 2, ROWS), 9)):
            bank.write(ids, rng.standard_normal((len(ids), DIM)), labels=np.asarray(ids) % 2, step=step)
        seen: Labels = {}
        give_up = time.monotonic() + 120
        while not {"negbank_index_building", "negbank_index_recall"} <= seen.keys():
            assert time.monotonic() < give_up, f"seen are only {sorted(seen)}"
            anchors = rng.standard_normal((8, DIM)).astype(np.float32)
            bank.sample(anchors, negbank.Nearest(10), anchor_labels=np.zeros(8, np.int64), exclude_same_label=True)
            bank.sample(anchors, negbank.Nearest(10, plan="graph"))
            bank.sample(anchors, negbank.Uniform(ROWS + 1, scope="shared"))
            bank.sample(anchors, negbank.Uniform(ROWS + 1, with_replacement=True))
            for family in text_string_to_metric_families(scraped(server)):
                for sample in family.samples:
                    seen.setdefault(sample.name, set()).update(sample.labels)
        yield seen
    finally:
        server.stop()


# What an operator must be able to see, and the labels that tell it apart.
FIGURES: dict[str, tuple[str, set[str]]] = {
    "queue time by method": ("negbank_compute_queue_seconds_bucket", {"method", "le"}),
    "compute time by method": ("negbank_compute_seconds_bucket", {"method", "le"}),
    "total time by method": ("negbank_grpc_request_seconds_bucket", {"method", "le"}),
    "entries": ("negbank_bank_entries", {"bank"}),
    "step": ("negbank_bank_step", {"bank"}),
    "sequence": ("negbank_bank_sequence", {"bank"}),
    "age": ("negbank_bank_age_steps", {"bank", "quantile"}),
    "index generation; lag is the sequence less it": ("negbank_index_generation", {"bank"}),
    "delta share, of the entries": ("negbank_index_delta_entries", {"bank"}),
    "drift": ("negbank_index_mean_similarity", {"bank"}),
    "recall": ("negbank_index_recall", {"bank"}),
    "refusals by reason": ("negbank_refusals_total", {"method", "reason"}),
    "score of what is served": ("negbank_served_score", {"bank"}),
    "served hardness": ("negbank_served_distance_bucket", {"bank", "le"}),
    "duplicates": ("negbank_duplicates_total", {"bank"}),
    "requests that shared a scan": ("negbank_joined_requests_total", {"bank"}),
    "shortfalls by reason": ("negbank_shortfalls_total", {"bank", "reason"}),
    "rejections by reason": ("negbank_rejections_total", {"bank", "reason"}),
    "memory by part": ("negbank_memory_bytes", {"part"}),
    "snapshots that are not taken": ("negbank_snapshot_failed", {"bank"}),
    "banks that a restarted server does not serve yet": ("negbank_recovering_banks", set()),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_a_server_shows_each_figure(figure: str, measured: Labels) -> None:
    name, labels = FIGURES[figure]
    assert name in measured
    assert labels <= measured[name]


def queries() -> list[tuple[str, str]]:
    """Where a query stands, and what it asks."""
    panels = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    return panels + [(rule["alert"], rule["expr"]) for group in ALERTS["groups"] for rule in group["rules"]]


def test_there_are_queries() -> None:
    assert len(queries()) > 30
    assert {"NegbankDown", "Recall"} < {place for place, _ in queries()}


@pytest.mark.parametrize(("place", "query"), queries())
def test_a_query_asks_for_what_is_measured(place: str, query: str, measured: Labels) -> None:
    nodes = list(nodes_of(query))
    selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    assert selectors, place
    has: set[str] = set()
    for selector in selectors:
        if selector.name in OF_PROMETHEUS:
            has |= ADDED_LABELS
            continue
        assert selector.name in measured, f"{place}: a server has no {selector.name}"
        has |= measured[selector.name] | ADDED_LABELS
        for matcher in selector.matchers.matchers:
            assert matcher.name in measured[selector.name] | ADDED_LABELS, (
                f"{place}: {selector.name} has no label {matcher.name}"
            )
    for node in nodes:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            assert set(node.modifier.labels) <= has, f"{place}: {node.modifier}"


def test_everything_that_is_measured_is_on_the_dashboard(measured: Labels) -> None:
    asked = {
        node.name
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
        for node in nodes_of(target["expr"])
        if isinstance(node, promql_parser.VectorSelector)
    }
    assert {family_of(name) for name in measured} == {family_of(name or "") for name in asked}


def test_the_variables_ask_for_labels_that_are_there(measured: Labels) -> None:
    asked = [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    assert len(asked) == 3
    for query in asked:
        series, label = query.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
        [selector] = nodes_of(series)
        assert label in measured[selector.name] | ADDED_LABELS


def test_panels_have_their_own_numbers_and_places() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not own & cells, f"{panel['title']} lies on another"
        cells |= own


def scraped(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://{server.probes}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def family_of(series: str) -> str:
    """Without the ending that tells a histogram's series apart."""
    for ending in ("_bucket", "_sum", "_count", "_created"):
        series = series.removesuffix(ending)
    return series


def nodes_of(query: str) -> Iterator[Any]:
    """The nodes of a query's tree. Grafana's variables are filled in."""
    todo: list[Any] = [promql_parser.parse(query.replace("$__rate_interval", "5m"))]
    while todo:
        node = todo.pop()
        yield node
        for name in (name for name in dir(node) if not name.startswith("_") and name not in {"parse", "prettify"}):
            value = getattr(node, name)
            todo += [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, promql_parser.Expr)]
