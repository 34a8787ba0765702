"""Whom the chart lets the server reach, and what its services say: beyond that Kubernetes takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from chart import CHART, VALUES, Manifest, of_kind, refusal, rendered
from installed_tools import REPOSITORY

DEFAULT, EVERYTHING, TLS = (CHART / "ci" / f"{name}-values.yaml" for name in ("default", "everything", "tls-tokens"))
DNS = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}


def ways_out(values: Path, *flags: str) -> Any:
    [policy] = of_kind("NetworkPolicy", rendered(values, *flags))
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    return policy["spec"]["egress"]


def test_the_server_reaches_nobody_unless_a_rule_says_so() -> None:
    assert ways_out(DEFAULT) == []
    assert ways_out(DEFAULT, "--set", "networkPolicy.dns=true") == []


def test_whoever_may_be_reached_is_found_by_name() -> None:
    rules = yaml.safe_load(EVERYTHING.read_text())["networkPolicy"]["egress"]
    assert ways_out(EVERYTHING) == [*rules, DNS]
    assert ways_out(EVERYTHING, "--set", "networkPolicy.dns=false") == rules
    assert "dns" in refusal("--values", str(EVERYTHING), "--set", "networkPolicy.dns=53")


def test_the_pages_ways_out_are_taken(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "deploying.md").read_text()
    [text] = [part.split("\n```")[0] for part in page.split("```yaml\n")[1:] if part.startswith("networkPolicy:\n")]
    file = tmp_path / "values.yaml"
    file.write_text(f"insecureListen: true\n{text}\n")
    assert ways_out(file) == [*yaml.safe_load(text)["networkPolicy"]["egress"], DNS]


def services(values: Path, *flags: str) -> tuple[Manifest, Manifest]:
    """The one for trainers, and the headless one that names the pod."""
    both = of_kind("Service", rendered(values, *flags))
    [headless] = [service for service in both if service["spec"].get("clusterIP") == "None"]
    [service] = [service for service in both if service != headless]
    return service, headless


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_pod_has_a_name_before_it_is_ready_and_calls_go_to_one_that_is(values: Path) -> None:
    service, headless = services(values)
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert headless["metadata"]["name"] == f"{service['metadata']['name']}-headless"
    assert {port["name"]: port["port"] for port in headless["spec"]["ports"]} == {"grpc": 7700, "http": 7701}
    assert "publishNotReadyAddresses" not in service["spec"]
    [port] = service["spec"]["ports"]
    assert port["targetPort"] == "grpc", "metrics and probes are not for whoever is given this one's address"


def test_the_service_says_that_it_speaks_http_2() -> None:
    def protocol(values: Path, *flags: str) -> str | None:
        [port] = services(values, *flags)[0]["spec"]["ports"]
        said: str | None = port.get("appProtocol")
        return said

    assert protocol(DEFAULT) == "kubernetes.io/h2c"
    assert protocol(TLS) is None, "h2c is HTTP/2 in the clear"
    assert protocol(EVERYTHING) == "grpc"
    assert protocol(TLS, "--set", "service.appProtocol=https") == "https"
