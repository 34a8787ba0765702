"""What `helm install` prints: its commands are run, against a server with the settings that the chart would give it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib
import trustme

import negbank
from chart import CHART, KUBERNETES, Manifest, helm, of_kind, parsed
from installed_tools import tool
from server_process import ServerProcess, binary

RELEASE = ["r", "--namespace", "train"]
HOST = "r-negbank.train.svc"
PLAIN = "insecureListen=true"
TLS, TOKENS, CLIENTS = (
    "tls.existingSecret=of-server",
    "auth.existingSecret=of-callers",
    "tls.clientCa.existingSecret=of-clients",
)
# Values, and what the notes say of who may call.
DOORS = {
    PLAIN: "need no token and are not encrypted: whoever reaches the port may read and delete every bank",
    f"{TLS},{PLAIN}": "are encrypted, but nobody is asked who makes them: whoever reaches the port may read and delete",
    f"{TOKENS},{PLAIN}": "need a token, but are not encrypted: whoever hears a token on its way can use it",
    f"{TLS},{TOKENS}": "are encrypted, and need a token.",
    f"{TLS},{CLIENTS}": "are encrypted, and need a client certificate; whoever has one may do everything.",
    f"{TLS},{CLIENTS},{TOKENS}": "are encrypted, and need a client certificate and a token.",
}


class Install:
    """The notes and the manifests under some values."""

    def __init__(self, values: str, chart: Path) -> None:
        shown = helm("template", *RELEASE, str(chart), "--kube-version", KUBERNETES[-1], "--set", values)
        manifests = parsed(shown)
        [self.notes] = [manifest["notes"] for manifest in manifests if "notes" in manifest]
        self.manifests: list[Manifest] = [manifest for manifest in manifests if "notes" not in manifest]
        self.commands = [line.strip() for line in self.notes.splitlines() if line.startswith("    ")]

    def command(self, begins: str) -> str:
        command: str
        [command] = [command for command in self.commands if command.startswith(begins)]
        return command

    def settings(self) -> dict[str, Any]:
        data = [manifest["data"] for manifest in of_kind("ConfigMap", self.manifests)]
        settings: dict[str, Any] = tomllib.loads(data[0]["negbank.toml"])
        return settings


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart, with its notes as a manifest: helm prints them only where it installs."""
    chart = tmp_path_factory.mktemp("chart") / "negbank"
    shutil.copytree(CHART, chart)
    as_value = 'notes: {{ include (print $.Template.BasePath "/NOTES.txt") . | toJson }}\n'
    (chart / "templates" / "shown.yaml").write_text(as_value)
    return chart


@pytest.fixture(params=DOORS)
def values(request: pytest.FixtureRequest) -> str:
    """Each way to close the door, or not, in turn."""
    values: str = request.param
    return values


@pytest.fixture
def install(values: str, chart: Path) -> Install:
    return Install(values, chart)


@pytest.fixture
def server(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """A server that asks for what the chart makes it ask for; here are the files that the notes name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEGBANK_TOKEN", raising=False)
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.crt")
    own = authority.issue_cert("trainer@localhost")
    own.cert_chain_pems[0].write_to_path("client.crt")
    own.private_key_pem.write_to_path("client.key")
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path("server.pem")
    asked, settings = install.settings(), []
    if "tls" in asked:
        settings += ["tls.certificate=server.pem", "tls.key=server.pem"]
        settings += ["tls.client_ca=ca.crt"] if "client_ca" in asked["tls"] else []
    if "auth" in asked:
        [made] = re.findall(r"`negbank (token [^`]*)`", install.notes)
        said = subprocess.run(["bash", "-c", f"{binary()} {made}"], check=True, capture_output=True, text=True)
        monkeypatch.setenv("NEGBANK_TOKEN", said.stdout.strip())
        settings += [f"auth.tokens={Path(asked['auth']['tokens']).name}"]
    process = ServerProcess(*settings)
    yield process
    process.stop()


def test_the_commands_reach_the_server(install: Install, server: ServerProcess) -> None:
    command = install.command("grpcurl ").replace("127.0.0.1:7700", server.address)
    assert server.address in command
    path = os.pathsep.join([str(Path(tool("grpcurl")).parent), os.environ["PATH"]])
    ran = subprocess.run(["bash", "-c", command], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "{}\n"), ran.stderr

    encrypted = "tls" in install.settings()

    class Package:
        """The package, whose `connect` finds the host on this machine."""

        @staticmethod
        def connect(address: str, **options: Any) -> negbank.Client:
            assert address == f"{'https://' if encrypted else ''}{HOST}:7700"
            here = address.replace(f"{HOST}:7700", server.address)
            return negbank.connect(here, server_name=HOST if encrypted else None, **options)

    client = eval(install.command("negbank.connect("), {"negbank": Package})
    assert client.list_banks() == []


def test_the_notes_say_who_may_call(values: str, install: Install) -> None:
    notes = " ".join(install.notes.split())
    assert f"Calls {DOORS[values]}" in notes
    settings = install.settings()
    insecure = settings["server"].get("insecure_listen", False)
    assert ("(insecureListen)" in notes) == insecure
    assert not ("tls" not in settings and "ca.crt" in notes), "it would be for nothing"


def test_the_other_commands_name_what_is_there(values: str, install: Install) -> None:
    forward = re.fullmatch(
        r"kubectl --namespace (\S+) port-forward service/(\S+) 7700:(\d+)", install.command("kubectl --namespace train port")
    )
    assert forward
    [service] = [each for each in of_kind("Service", install.manifests) if each["metadata"]["name"] == forward[2]]
    assert (service["metadata"]["namespace"], forward[1]) == ("train", "train")
    assert int(forward[3]) in {port["port"] for port in service["spec"]["ports"]}
    assert install.command("helm ") == "helm --namespace train test r"
    assert of_kind("Pod", install.manifests), "the test's"
    [stateful_set] = of_kind("StatefulSet", install.manifests)
    volumes = stateful_set["spec"]["template"]["spec"]["volumes"]
    secrets = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
    assert {name for name in re.findall(r"[Ss]ecret (of-\S+)", install.notes)} == secrets
    if TLS in values:
        wanted = "kubectl --namespace train get secret of-server --output 'jsonpath={.data.ca\\.crt}' | base64 --decode >ca.crt"
        assert install.command("kubectl --namespace train get") == wanted
    [claim] = stateful_set["spec"]["volumeClaimTemplates"]
    assert f"{claim['metadata']['name']}-{stateful_set['metadata']['name']}-0" in install.notes


def test_the_notes_say_what_becomes_of_banks(chart: Path) -> None:
    assert "leaves there" in Install(PLAIN, chart).notes
    assert "deletes, and the banks with it" in Install(f"{PLAIN},persistence.whenDeleted=Delete", chart).notes
    assert "in the claim mine." in Install(f"{PLAIN},persistence.existingClaim=mine", chart).notes
    assert "banks end with the pod" in Install(f"{PLAIN},persistence.enabled=false", chart).notes
    assert "replicas is 0" in Install(f"{PLAIN},replicas=0", chart).notes
    assert "helm --namespace" not in Install(f"{PLAIN},tests.enabled=false", chart).notes
    needless = Install(f"{TLS},{TOKENS},{PLAIN}", chart).notes
    assert "insecureListen can be left out" in needless
