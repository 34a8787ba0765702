"""The Helm chart: rendered by the real helm, checked against Kubernetes' own schemas, its settings read by a real server."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import tomllib
import yaml

from chart import CHART, DEPLOY, KUBERNETES, OPEN, VALUES, Manifest, helm, of_kind, parsed, refusal, rendered
from installed_tools import REPOSITORY
from server_process import ServerProcess, binary

# Of the Prometheus operator, whose schemas test_alerts.py has: Kubernetes has none of them.
OPERATORS_OWN = {"ServiceMonitor", "PrometheusRule"}


@pytest.fixture(params=VALUES, ids=lambda path: path.stem)
def values(request: pytest.FixtureRequest) -> Path:
    """Each file of values in turn."""
    path: Path = request.param
    return path


def test_the_chart_is_linted_without_a_warning(values: Path) -> None:
    linted = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert "0 chart(s) failed" in linted
    assert "WARNING" not in linted


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_each_manifest_fits_kubernetes_schema(values: Path, kubernetes: str) -> None:
    manifests = rendered(values, kubernetes=kubernetes)
    assert {"StatefulSet", "Service", "ConfigMap"} <= {manifest["kind"] for manifest in manifests}
    for manifest in manifests:
        if manifest["kind"] not in OPERATORS_OWN:
            kubernetes_validate.validate(manifest, kubernetes, strict=True)


def test_a_manifest_that_does_not_fit_is_found() -> None:
    [stateful_set] = of_kind("StatefulSet", rendered(VALUES[0]))
    stateful_set["spec"]["template"]["spec"]["containers"][0]["liveness"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(stateful_set, KUBERNETES[0], strict=True)


def test_the_server_takes_the_settings_as_they_are_rendered(values: Path, tmp_path: Path) -> None:
    text = settings_of(rendered(values))
    given = flat(tomllib.loads(text))
    known = subprocess.run([binary(), "config"], check=True, capture_output=True, text=True).stdout
    unknown = given.keys() - flat(tomllib.loads(known)).keys()
    assert not unknown, "the chart sets what the server does not know"
    file = tmp_path / "negbank.toml"
    file.write_text(text)
    shown = subprocess.run([binary(), "config", "--config", file], check=True, capture_output=True, text=True).stdout
    assert given.items() <= flat(tomllib.loads(shown)).items()
    for key in given:
        [line] = [line for line in shown.splitlines() if line.startswith(f"{key} = ")]
        assert line.endswith(file.name), "it is the file that set it"


def test_every_container_is_confined(values: Path) -> None:
    pods = [pod for manifest in rendered(values) for pod in pods_of(manifest)]
    assert pods
    for pod in [*pods, *pods_of(sidecar_job())]:
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"] + pod.get("initContainers", []):
            if container["name"] in {"neighbour", "trainer"}:  # somebody else's
                continue
            security = pod.get("securityContext", {}) | container["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security["runAsUser"] == 65532
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_a_pod_is_killed_only_after_its_drain(values: Path) -> None:
    manifests = rendered(values)
    [stateful_set] = of_kind("StatefulSet", manifests)
    drain = flat(tomllib.loads(settings_of(manifests)))["server.drain_seconds"]
    assert stateful_set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= drain + 15


def test_the_probes_ask_what_the_server_answers(values: Path, answering: ServerProcess) -> None:
    [stateful_set] = of_kind("StatefulSet", rendered(values))
    containers = [*pods_of(stateful_set)[0]["containers"][:1], *pods_of(sidecar_job())[0]["initContainers"]]
    for container in containers:
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["http"] == 7701
        assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
        # A pod that keeps banks must not be killed because it takes long to recover them; a sidecar keeps none.
        recovers = "readinessProbe" in container
        assert container["startupProbe"]["httpGet"]["path"] == ("/livez" if recovers else "/readyz")
        assert not recovers or container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if kind in container:
                url = f"http://{answering.probes}{container[kind]['httpGet']['path']}"
                with urllib.request.urlopen(url, timeout=20) as answer:
                    assert answer.status == 200


@pytest.fixture(scope="module")
def answering() -> Iterator[ServerProcess]:
    """A server that answers probes."""
    process = ServerProcess("http.listen=127.0.0.1:0")
    yield process
    process.stop()


def test_what_selects_pods_selects_the_servers_alone(values: Path) -> None:
    manifests = rendered(values)
    [stateful_set] = of_kind("StatefulSet", manifests)
    server = stateful_set["spec"]["template"]["metadata"]["labels"]
    services = of_kind("Service", manifests)
    selectors = [service["spec"]["selector"] for service in services]
    selectors += [manifest["spec"]["selector"]["matchLabels"] for manifest in of_kind("PodDisruptionBudget", manifests)]
    selectors += [manifest["spec"]["podSelector"]["matchLabels"] for manifest in of_kind("NetworkPolicy", manifests)]
    selectors.append(stateful_set["spec"]["selector"]["matchLabels"])
    others = [manifest["metadata"]["labels"] for manifest in of_kind("Pod", manifests)]
    for selector in selectors:
        assert selector.items() <= server.items()
        assert not any(selector.items() <= other.items() for other in others)
    assert stateful_set["spec"]["serviceName"] in {service["metadata"]["name"] for service in services}
    for monitor in of_kind("ServiceMonitor", manifests):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        [watched] = [service for service in services if wanted.items() <= service["metadata"]["labels"].items()]
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in watched["spec"]["ports"]}


def test_names_fit_even_if_the_release_has_a_long_one() -> None:
    for manifest in rendered(VALUES[0], release="r" * 53):
        name = manifest["metadata"]["name"]
        assert len(name) <= 63
        if manifest["kind"] == "StatefulSet":
            assert len(name) + len("-0123456789") <= 63, "its pods are labelled with a hash after the name"


def test_secrets_are_mounted_where_the_settings_look_for_them() -> None:
    manifests = rendered(CHART / "ci" / "tls-tokens-values.yaml")
    [stateful_set] = of_kind("StatefulSet", manifests)
    pod = stateful_set["spec"]["template"]["spec"]
    settings = flat(tomllib.loads(settings_of(manifests)))
    mounts = pod["containers"][0]["volumeMounts"]
    assert not any("subPath" in mount for mount in mounts), "a subPath is never brought up to date"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    secrets = {mount["mountPath"]: volumes.get(mount["name"], {}).get("secret", {}).get("secretName") for mount in mounts}
    for key, secret in [
        ("tls.certificate", "negbank-tls"),
        ("tls.key", "negbank-tls"),
        ("tls.client_ca", "negbank-clients"),
        ("auth.tokens", "negbank-tokens"),
    ]:
        assert secrets[str(Path(settings[key]).parent)] == secret
    assert "server.insecure_listen" not in settings


# What `checkpoints.spool` is where neither it nor a data folder is set: the image has no TMPDIR.
FALLBACK = Path("/tmp")


@pytest.mark.parametrize("extra", [[], ["--set", "config.checkpoints.location=s3://bucket/banks"]], ids=["as it is", "s3"])
def test_checkpoints_have_a_folder_to_be_written_to_first(values: Path, extra: list[str]) -> None:
    manifests = rendered(values, *extra)
    settings = flat(tomllib.loads(settings_of(manifests)))
    data = settings.get("durability.dir")
    spool = Path(settings.get("checkpoints.spool") or (Path(data) / "spool" if data else FALLBACK))
    [stateful_set] = of_kind("StatefulSet", manifests)
    assert written(stateful_set, "containers", spool) in {"emptyDir", "claim"}
    assert written(sidecar_job(), "initContainers", FALLBACK) == "emptyDir"
    assert written(stateful_set, "containers", Path("/elsewhere")) is None


def test_what_checkpoints_take_of_the_node_can_be_bounded() -> None:
    def scratch(*values: str) -> list[Any]:
        flags = [part for value in (OPEN, *values) for part in ("--set-json" if "[" in value else "--set", value)]
        manifests = parsed(helm("template", "r", str(CHART), "--kube-version", KUBERNETES[-1], *flags))
        [stateful_set] = of_kind("StatefulSet", manifests)
        volumes = pods_of(stateful_set)[0]["volumes"]
        return [volume["emptyDir"] for volume in volumes if volume["name"] == "scratch"]

    assert scratch() == []
    assert scratch("config.checkpoints.spool=/tmpfs") == []
    assert scratch("config.checkpoints.spool=/tmp/banks") == [{}]
    assert scratch("persistence.enabled=false") == [{}]
    assert scratch("persistence.enabled=false", "scratch.sizeLimit=8Gi") == [{"sizeLimit": "8Gi"}]
    own = 'extraVolumeMounts=[{"name": "mine", "mountPath": "/tmp/"}]'
    assert scratch("persistence.enabled=false", own) == [], "a path is mounted once"


def test_an_open_door_must_be_asked_for_by_name() -> None:
    for values in ["replicas=1", "tls.clientCa.existingSecret=ca", "tls.existingSecret=a", "auth.existingSecret=b"]:
        assert "insecureListen=true" in refusal("--set", values)
    assert "set auth.existingSecret or tls.clientCa.existingSecret" in refusal("--set", "tls.existingSecret=a")
    assert "set tls.existingSecret" in refusal("--set", "auth.existingSecret=b")
    assert "tls.existingSecret" in refusal("--set", "tls.clientCa.existingSecret=ca,insecureListen=true")
    closed = ["tls.existingSecret=a,auth.existingSecret=b", "tls.existingSecret=a,tls.clientCa.existingSecret=c"]
    for values in [*closed, OPEN, f"{OPEN},tls.existingSecret=a", f"{OPEN},auth.existingSecret=b"]:
        helm("template", "r", str(CHART), "--kube-version", KUBERNETES[-1], "--set", values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("replicas=2", "replicas"),
        ("replica=1", "replica"),
        ("config.limits.max_k=[1]", "max_k"),
        ("config.server.listen=127.0.0.1:1", "config.server.listen is set by the chart"),
        ("config.server.insecure_listen=false", "bindAddress, drainSeconds, insecureListen, persistence"),
        ("config.tls.key=/etc/key", "config.tls.key is set by the chart"),
        ("drainSeconds=0", "drainSeconds"),
        ("service.type=Nodeport", "service"),
        ("persistence.size=twenty", "persistence"),
        ("scratch.sizeLimit=much", "scratch"),
        ("metrics.prometheusRule.enabled=true", "metrics.prometheusRule.targets"),
    ],
)
def test_values_that_can_not_work_are_refused(values: str, says: str) -> None:
    flag = "--set-json" if "[" in values else "--set"
    assert says in refusal("--set", OPEN, flag, values)


def test_what_the_chart_sets_can_not_be_set_twice() -> None:
    helpers = (CHART / "templates" / "_helpers.tpl").read_text()
    [written] = re.findall(r'define "negbank.settings" -}}(.*?)\n{{- define', helpers, re.S)
    keys = re.findall(r"^(\w+\.\w+): ", written, re.M)
    rendered_too = {key for values in VALUES for key in flat(tomllib.loads(settings_of(rendered(values))))}
    assert {"server.listen", "server.insecure_listen", "tls.client_ca", "durability.dir"} <= {*keys} <= rendered_too
    for key in keys:
        assert f"config.{key} is set by the chart" in refusal("--set", OPEN, "--set", f"config.{key}=1")


def test_changed_settings_restart_the_pod_and_a_new_chart_alone_does_not(tmp_path: Path) -> None:
    def template(chart: Path, *flags: str) -> Any:
        shown = helm("template", "r", str(chart), "--kube-version", "1.31", "--set", OPEN, *flags)
        [stateful_set] = of_kind("StatefulSet", parsed(shown))
        return stateful_set["spec"]["template"]

    newer = tmp_path / "negbank"
    shutil.copytree(CHART, newer)
    about = newer / "Chart.yaml"
    about.write_text(about.read_text().replace("\nversion: 0.1.0", "\nversion: 9.9.9"))
    before = template(CHART)
    assert template(newer) == before
    after = template(CHART, "--set", "config.limits.max_k=7")
    assert after != before
    assert without_checksum(after) == without_checksum(before)


def test_the_example_job_fits_kubernetes_schema() -> None:
    job = sidecar_job()
    kubernetes_validate.validate(job, KUBERNETES[-1], strict=True)
    [server] = job["spec"]["template"]["spec"]["initContainers"]
    assert server["restartPolicy"] == "Always", "only so is it a sidecar"
    # Each of its settings is one of the server's.
    subprocess.run([binary(), "config", *server["args"][1:]], check=True, capture_output=True)


def test_the_charts_dashboard_is_the_repositorys() -> None:
    manifests = rendered(CHART / "ci" / "everything-values.yaml")
    [dashboard] = [manifest for manifest in of_kind("ConfigMap", manifests) if "negbank.json" in manifest["data"]]
    assert json.loads(dashboard["data"]["negbank.json"]) == json.loads((DEPLOY / "grafana" / "negbank.json").read_text())


def test_a_package_renders_as_the_folder_does(tmp_path: Path) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))
    [package] = tmp_path.iterdir()
    values = CHART / "ci" / "everything-values.yaml"
    shown = helm("template", "r", str(package), "--kube-version", KUBERNETES[-1], "--values", str(values))
    assert parsed(shown) == rendered(values), "dashboard and alerts are links here, and must be files there"


def test_the_pages_commands_install_the_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    page = (REPOSITORY / "docs" / "deploying.md").read_text()
    commands = [line.split()[3:] for line in page.splitlines() if line.startswith("$ helm install ")]
    assert len(commands) == 3
    for command in commands:
        assert of_kind("StatefulSet", parsed(helm("template", "--kube-version", KUBERNETES[-1], *command)))


def pods_of(manifest: Manifest) -> list[Manifest]:
    """The pods that a manifest describes."""
    if manifest["kind"] == "Pod":
        return [manifest["spec"]]
    return [manifest["spec"]["template"]["spec"]] if manifest["kind"] in {"StatefulSet", "Job"} else []


def written(manifest: Manifest, containers: str, folder: Path) -> str | None:
    """What a pod's first container writes to in that folder: an "emptyDir", a "claim", or nothing."""
    [pod] = pods_of(manifest)
    mounts = pod[containers][0].get("volumeMounts", [])
    names = {mount["name"] for mount in mounts if folder.is_relative_to(mount["mountPath"]) and not mount.get("readOnly")}
    claims = {claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])}
    claims |= {volume["name"] for volume in pod.get("volumes", []) if "persistentVolumeClaim" in volume}
    empty = {volume["name"] for volume in pod.get("volumes", []) if "emptyDir" in volume}
    return "claim" if names & claims else "emptyDir" if names & empty else None


def sidecar_job() -> Manifest:
    job: Manifest = yaml.safe_load((DEPLOY / "kubernetes" / "trainer-with-sidecar.yaml").read_text())
    return job


def settings_of(manifests: list[Manifest]) -> str:
    """The server's TOML file."""
    data = {name: text for manifest in of_kind("ConfigMap", manifests) for name, text in manifest["data"].items()}
    text: str = data["negbank.toml"]
    return text


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A TOML document by dotted keys."""
    settings: dict[str, Any] = {}
    for key, value in table.items():
        settings |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return settings


def without_checksum(template: Manifest) -> Manifest:
    template = copy.deepcopy(template)
    del template["metadata"]["annotations"]["checksum/config"]
    return template
