"""Where the chart's pods run, the server's and that of `helm test`, and what may take the server away."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from chart import CHART, SIDECAR, Manifest, of_kind, rendered

DEFAULT, EVERYTHING, MINIMAL = (CHART / "ci" / f"{name}-values.yaml" for name in ("default", "everything", "minimal"))
# What a pod needs to be admitted, placed and given its image, and the server's pod takes from values; affinity apart.
NEEDED = {"imagePullSecrets", "serviceAccountName", "securityContext", "runtimeClassName", "nodeSelector", "tolerations"}
# What is the server's alone.
OWN = {"priorityClassName", "topologySpreadConstraints", "terminationGracePeriodSeconds", "volumes"}


def servers(manifests: list[Manifest]) -> Manifest:
    [stateful_set] = of_kind("StatefulSet", manifests)
    template: Manifest = stateful_set["spec"]["template"]
    return template


def test_helm_tests_pod_runs_wherever_the_server_may() -> None:
    manifests = rendered(EVERYTHING)
    [pod] = of_kind("Pod", manifests)
    test, server = pod["spec"], servers(manifests)["spec"]
    assert NEEDED <= server.keys()
    assert {key: test.get(key) for key in NEEDED} == {key: server[key] for key in NEEDED}
    assert test["affinity"] == server["affinity"]
    assert server.keys() - test.keys() == OWN, "whatever else the server's pod is given, the test's is too"
    common = yaml.safe_load(EVERYTHING.read_text())["commonLabels"]
    assert common.items() <= pod["metadata"]["labels"].items()
    images = {container["image"] for container in test["containers"]}
    assert images == {server["containers"][0]["image"]}


def test_helm_tests_pod_need_not_be_near_what_the_server_is_near() -> None:
    near = 'affinity={"podAffinity": {}, "nodeAffinity": {"a": 1}}'
    [pod] = of_kind("Pod", rendered(DEFAULT, "--set-json", near))
    assert pod["spec"]["affinity"] == {"nodeAffinity": {"a": 1}}
    [pod] = of_kind("Pod", rendered(SIDECAR))
    assert "affinity" not in pod["spec"]


@pytest.mark.parametrize(("flags", "most"), [((), 1), (("--set", "podDisruptionBudget.maxUnavailable=0"), 0)])
def test_a_drained_node_takes_the_server_along_unless_none_may_be_missing(flags: tuple[str, ...], most: int) -> None:
    [budget] = of_kind("PodDisruptionBudget", rendered(DEFAULT, *flags))
    assert budget["spec"].keys() == {"maxUnavailable", "selector"}
    assert budget["spec"]["maxUnavailable"] == most


def test_a_server_that_takes_its_banks_along_is_not_drained_and_without_a_budget_there_is_none() -> None:
    [budget] = of_kind("PodDisruptionBudget", rendered(SIDECAR))
    assert budget["spec"]["maxUnavailable"] == 0
    assert not of_kind("PodDisruptionBudget", rendered(MINIMAL))


def test_servers_are_spread_over_nodes_and_all_of_them_count() -> None:
    def spread(*arguments: Any) -> Any:
        return servers(rendered(*arguments))["spec"].get("topologySpreadConstraints")

    [constraint] = spread(DEFAULT)
    assert constraint == {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "negbank"}},
    }
    one, other = (servers(rendered(DEFAULT, release=release))["metadata"]["labels"] for release in ("one", "other"))
    counted = constraint["labelSelector"]["matchLabels"].items()
    assert counted <= one.items()
    assert counted <= other.items()
    assert spread(EVERYTHING) == yaml.safe_load(EVERYTHING.read_text())["topologySpreadConstraints"], "one's own stays as it is"
    assert spread(MINIMAL) is None
