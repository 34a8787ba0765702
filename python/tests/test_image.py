"""The container image: the file system that deploy/image/root.sh lays out, and the server inside it, without rights."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
import tomllib
import yaml

from installed_tools import REPOSITORY, not_allowed, tool
from server_process import ServerProcess, binary

DEPLOY = REPOSITORY / "deploy"
USER = "65532"

# As a container engine does it: the image read-only, the data's volume writable inside it, no way back to root.
CONFINED = """
root=$1; volume=$2; shift 2
mount --bind "$root" "$root"
mount --bind "$volume" "$root/var/lib/negbank"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec=65532:65532 --groups=65532 "$root" /usr/local/bin/negbank "$@"
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The image's file system."""
    if os.geteuid() != 0:
        not_allowed("the image is laid out and entered by root only; run this as root, in a container say")
    root, sbom = tmp_path / "image", tmp_path / "negbank_bin.cdx.json"
    sbom.write_text("{}")
    subprocess.run([DEPLOY / "image" / "root.sh", binary(), root, sbom], check=True)
    return root


def test_the_server_runs_in_its_image_without_rights_and_keeps_its_banks(image: Path, tmp_path: Path) -> None:
    may = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True, text=True)
    if may.returncode != 0:
        not_allowed(f"the kernel refuses a mount namespace here: {may.stderr.strip()}")
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, int(USER), int(USER))
    inside = ["unshare", "--mount", "sh", "-ec", CONFINED, "sh", str(image), str(volume)]
    settings = ["http.listen=127.0.0.1:0", "durability.dir=/var/lib/negbank"]

    server = ServerProcess(*settings, program=inside)
    try:
        process = Path(f"/proc/{server.pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert status["Uid"].split() == status["Gid"].split() == [USER] * 4
        assert status["Groups"].split() == [USER]
        assert (int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"]) == (0, 0, "1")
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
        options = {mount[4]: mount[5].split(",") for mount in mounts}
        assert "ro" in options["/"]
        assert "rw" in options["/var/lib/negbank"]

        assert get(server, "/readyz") == "ok\n"
        # The health check of compose, and of `helm test`: the image has no other program.
        subprocess.run(
            ["chroot", image, "/usr/local/bin/negbank", "doctor", "--ready", "--probes", str(server.probes)], check=True
        )
        assert "negbank.v1.Banks" in grpcurl(server, "list")
        grpcurl(server, "negbank.v1.Banks/CreateBank", {"name": "kept", "dim": 2})
        grpcurl(server, "negbank.v1.Banks/Write", {"bank": "kept", "ids": [7], "embeddings": {"values": [1, 0]}})
        assert server.terminate() == 0
    finally:
        server.stop()

    server = ServerProcess(*settings, program=inside)
    try:
        assert json.loads(grpcurl(server, "negbank.v1.Banks/GetBank", {"name": "kept"}))["entries"] == "1"
    finally:
        server.stop()


def test_the_image_holds_nothing_to_break_in_with(image: Path) -> None:
    programs = [path for path in image.rglob("*") if path.is_file() and os.access(path, os.X_OK)]
    libraries = [path for path in programs if ".so" in path.name]
    assert [path for path in programs if path not in libraries] == [image / "usr/local/bin/negbank"]
    assert len(libraries) <= 6, libraries
    assert (image / "usr/share/doc/negbank/negbank.cdx.json").read_text() == "{}", "what it is made of"
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    assert (image / authorities.relative_to("/")).is_file() == authorities.is_file(), "whom it trusts"
    assert not [path for path in image.rglob("*") if path.stat().st_mode & 0o6000], "set-user-id"
    assert [path for path in image.rglob("*") if path.stat().st_uid != 0] == [image / "var/lib/negbank"]


def test_the_build_context_has_all_that_cargo_reads(tmp_path: Path) -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in lines, "what is not named is left out"
    for name in (line[1:] for line in lines if line.startswith("!")):
        source, target = REPOSITORY / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    command = [tool("cargo"), "metadata", "--locked", "--offline", "--no-deps", "--format-version=1"]
    read = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert read.returncode == 0, read.stderr
    assert {package["name"] for package in json.loads(read.stdout)["packages"]} >= {"negbank"}
    sources = "".join(path.read_text() for path in tmp_path.rglob("*.rs"))
    for included in re.findall(r'include(?:_str|_bytes)?!\(\s*"([^"]+)"', sources):
        assert list(tmp_path.rglob(Path(included).name)), f"{included} is left out of the build context"


def test_all_files_speak_of_one_version() -> None:
    version = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    chart = yaml.safe_load((DEPLOY / "helm" / "negbank" / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    assert f"ARG VERSION={version}\n" in (DEPLOY / "Dockerfile").read_text()
    for file in ("compose.yaml", "kubernetes/trainer-with-sidecar.yaml"):
        assert f"image: negbank/negbank:{version}\n" in (DEPLOY / file).read_text()


def test_the_dockerfile_ends_with_the_image_and_its_user() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    last = lines[max(n for n, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert last[0] == "FROM scratch"
    assert f"USER {USER}:{USER}" in last
    assert 'ENTRYPOINT ["/usr/local/bin/negbank"]' in last
    assert "deploy/image/root.sh /negbank /image" in "\n".join(lines)


def test_the_image_tells_what_it_is_made_of_as_make_sbom_does() -> None:
    dockerfile, makefile = (DEPLOY / "Dockerfile").read_text(), (REPOSITORY / "Makefile").read_text()
    [version] = re.findall(r"^CYCLONEDX_VERSION := (\S+)$", makefile, re.M)
    assert f"cargo-cyclonedx@{version}" in dockerfile
    for command in ("cyclonedx --quiet --format json --describe binaries --target", "negbank_bin.cdx.json"):
        assert command in makefile
        assert command in dockerfile
    assert "deploy/image/root.sh /negbank /image negbank_bin.cdx.json" in dockerfile
    page = (REPOSITORY / "docs" / "deploying.md").read_text()
    assert "/usr/share/doc/negbank/negbank.cdx.json" in page


def test_compose_names_files_and_settings_that_are_there() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for service in services.values():
        for source in (volume.split(":")[0] for volume in service["volumes"]):
            assert not source.startswith(".") or (DEPLOY / source).exists(), source
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), "reached from elsewhere only if somebody says so"
    server = services["negbank"]
    assert (server["read_only"], server["cap_drop"]) == (True, ["ALL"])
    assert server["healthcheck"]["test"] == ["CMD", "/usr/local/bin/negbank", "doctor", "--ready"]
    flags = server["command"][1:]
    shown = subprocess.run([binary(), "config", *flags], check=True, capture_output=True, text=True).stdout
    [drain] = re.findall(r"server.drain_seconds = (\d+)", shown)
    assert int(server["stop_grace_period"].removesuffix("s")) >= int(drain) + 15
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == ["negbank:7701"]
    for file in prometheus["rule_files"]:
        assert (DEPLOY / "prometheus" / file).exists()
    [provider] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/negbank.yaml").read_text())["providers"]
    assert f"./grafana/negbank.json:{provider['options']['path']}/negbank.json:ro" in services["grafana"]["volumes"]


def get(server: ServerProcess, path: str) -> str:
    with urllib.request.urlopen(f"http://{server.probes}{path}", timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def grpcurl(server: ServerProcess, method: str, request: dict[str, object] | None = None) -> str:
    flags = ["-plaintext"] if request is None else ["-plaintext", "-d", json.dumps(request)]
    run = subprocess.run([tool("grpcurl"), *flags, server.address, method], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout
