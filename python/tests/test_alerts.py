"""The chart's ServiceMonitor and PrometheusRule: such as the Prometheus operator takes, and of the server they came with."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import promql_parser
import pytest
import yaml

from chart import CHART, DEPLOY, Manifest, of_kind, rendered
from installed_tools import REPOSITORY, schema

EVERYTHING = CHART / "ci" / "everything-values.yaml"
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
EQUAL = promql_parser.MatchOp.Equal
KINDS = {"ServiceMonitor": "servicemonitors.yaml", "PrometheusRule": "prometheusrules.yaml"}
WAYS: dict[str, list[str]] = {
    "as it is": [],
    "another name": ["--set", "nameOverride=miner"],
    "another full name": ["--set", "fullnameOverride=miner-of-a-team"],
    "both": ["--set", "nameOverride=miner,fullnameOverride=miner-of-a-team"],
    "another namespace": ["--namespace", "training"],
}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """Everything that the chart makes, under one name after the other."""
    return rendered(EVERYTHING, "--set", "fullnameOverride=", *request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_takes_it(kind: str, manifests: list[Manifest]) -> None:
    [manifest] = of_kind(kind, manifests)
    assert not list(faults(kind, manifest))


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_operator_does_not_know_is_found(kind: str) -> None:
    [manifest] = of_kind(kind, rendered(EVERYTHING))
    assert not list(faults(kind, manifest))
    for place in ["spec", "spec.endpoints.0", "spec.groups.0.rules.0"]:
        broken = copy.deepcopy(manifest)
        try:
            at(broken, place)["intervall"] = "15s"
        except KeyError:
            continue
        assert "intervall" in "".join(faults(kind, broken)), place


def test_the_alerts_are_the_repositorys_for_this_servers_targets(manifests: list[Manifest]) -> None:
    [rule] = of_kind("PrometheusRule", manifests)
    ours = ", ".join(f'{label}="{value}"' for label, value in labels_of_target(manifests).items())
    expected = copy.deepcopy(ALERTS)
    for alert in (alert for group in expected["groups"] for alert in group["rules"]):
        alert["expr"] = alert["expr"].replace('job="negbank"', ours)
    assert rule["spec"] == expected


def test_each_alert_is_of_the_target_that_the_monitor_makes(manifests: list[Manifest]) -> None:
    [rule] = of_kind("PrometheusRule", manifests)
    target = labels_of_target(manifests)
    for query, named in named_targets(rule["spec"]):
        assert all(equals.items() >= target.items() for equals in named), query


def test_the_alerts_of_one_release_are_not_of_another() -> None:
    ours, theirs = (rendered(EVERYTHING, "--set", "fullnameOverride=", release=release) for release in ("ours", "theirs"))
    elsewhere = rendered(EVERYTHING, "--set", "fullnameOverride=", "--namespace", "training", release="ours")
    [rule] = of_kind("PrometheusRule", ours)
    for query, named in named_targets(rule["spec"]):
        for others in (labels_of_target(theirs), labels_of_target(elsewhere)):
            assert all(is_silent_of(equals, others) for equals in named), query


def test_the_repositorys_alerts_stand_by_themselves() -> None:
    alerts = list(named_targets(ALERTS))
    assert len(alerts) >= 12
    for query, named in alerts:
        assert named, query
        assert all(equals["job"] == "negbank" and not {"namespace", "service"} & {*equals} for equals in named), query
        assert "{{" not in query


def test_a_server_without_a_target_is_told_of() -> None:
    [down] = [alert for alert in ALERTS["groups"][0]["rules"] if alert["alert"] == "NegbankDown"]
    query: Any = promql_parser.parse(down["expr"])
    assert str(query.op) == "or"
    silent, missing = query.lhs, query.rhs
    assert isinstance(missing, promql_parser.Call)
    assert missing.func.name == "absent"
    assert str(missing.args[0]) == str(silent.lhs) == 'up{job="negbank"}'
    assert (str(silent.op), silent.rhs.val) == ("==", 0.0)
    # There is no instance to name then.
    assert "{{ if $labels.instance }}" in down["annotations"]["summary"]


def test_what_the_alerts_say_of_the_log_and_of_pages_is_there() -> None:
    told = {alert["alert"]: alert["annotations"]["description"] for alert in ALERTS["groups"][0]["rules"]}
    sources = "".join(path.read_text() for path in (REPOSITORY / "src").rglob("*.rs"))
    lines = re.findall(r'"([^"]+)"', told["NegbankFails"])
    assert len(lines) == 2
    for line in lines:
        assert re.search(rf'error!\([^;]*"{re.escape(line)}', sources), f"no error of the log begins so: {line}"
    links = {name: re.findall(r"(docs/\w+\.md)#([\w-]+)", text) for name, text in told.items()}
    assert links["NegbankDiskNearlyFull"] == [("docs/deploying.md", "a-larger-volume")]
    for page, anchor in (link for found in links.values() for link in found):
        headings = re.findall(r"^#+ (.+)$", (REPOSITORY / page).read_text(), re.M)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_targets_may_be_named_and_a_server_that_was_stopped_has_no_alerts() -> None:
    own = ["--set", "metrics.serviceMonitor.enabled=false", "--set", 'metrics.prometheusRule.targets=job=~"mine|ours"']
    [rule] = of_kind("PrometheusRule", rendered(EVERYTHING, *own))
    assert not list(faults("PrometheusRule", rule))
    assert rule["spec"]["groups"][0]["rules"][0]["expr"] == 'up{job=~"mine|ours"} == 0 or absent(up{job=~"mine|ours"})'
    assert not of_kind("PrometheusRule", rendered(EVERYTHING, "--set", "replicas=0"))


def named_targets(rules: Manifest) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Each alert's expression, and what each of its selectors wants labels to equal."""
    for query in (alert["expr"] for group in rules["groups"] for alert in group["rules"]):
        found = list(selectors(promql_parser.parse(query)))
        assert len(found) == len(re.findall(r"\b(?:negbank|process)_\w+|\bup\b", query)), query
        yield query, [{each.name: each.value for each in one.matchers.matchers if each.op == EQUAL} for one in found]


def is_silent_of(equals: dict[str, str], target: dict[str, str]) -> bool:
    """Whether a selector takes no series of that target."""
    return any(label in equals and equals[label] != value for label, value in target.items())


def labels_of_target(manifests: list[Manifest]) -> dict[str, str]:
    """What the Prometheus operator labels the target with that the monitor makes of its service."""
    [monitor] = of_kind("ServiceMonitor", manifests)
    wanted = monitor["spec"]["selector"]["matchLabels"]
    [service] = [each for each in of_kind("Service", manifests) if wanted.items() <= each["metadata"]["labels"].items()]
    about = service["metadata"]
    assert monitor["spec"]["namespaceSelector"]["matchNames"] == [about["namespace"]]
    job = about["labels"][monitor["spec"]["jobLabel"]]
    return {"job": job, "namespace": about["namespace"], "service": about["name"]}


def faults(kind: str, manifest: Manifest) -> Iterator[str]:
    """What the kind's schema, and nothing beside it, does not allow."""
    definition = yaml.safe_load(schema(KINDS[kind]).read_text())
    assert definition["spec"]["names"]["kind"] == kind
    group, version = manifest["apiVersion"].split("/")
    assert definition["spec"]["group"] == group
    [served] = [each for each in definition["spec"]["versions"] if each["name"] == version and each["served"]]
    validator = jsonschema.Draft202012Validator(closed(served["schema"]["openAPIV3Schema"]))
    return (f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(manifest))


def closed(part: Any) -> Any:
    """The schema with no field allowed that it does not name, where it names any."""
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    inner = {key: closed(value) for key, value in part.items()}
    is_open = "additionalProperties" in part or part.get("x-kubernetes-preserve-unknown-fields")
    if part.get("type") == "object" and isinstance(part.get("properties"), dict) and not is_open:
        inner["additionalProperties"] = False
    return inner


def at(manifest: Manifest, place: str) -> Manifest:
    """The object at a dotted place; KeyError if there is none."""
    inner: Any = manifest
    for step in place.split("."):
        inner = inner[int(step) if step.isdigit() else step]
    found: Manifest = inner
    return found


def selectors(query: Any) -> Iterator[Any]:
    """Every selector of series in a query."""
    todo = [query]
    while todo:
        node = todo.pop()
        if isinstance(node, promql_parser.VectorSelector):
            yield node
        for name in (name for name in dir(node) if not name.startswith("_") and name not in {"parse", "prettify"}):
            value = getattr(node, name)
            todo += [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, promql_parser.Expr)]
