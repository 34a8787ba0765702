"""docs/deploying.md, "By hand, with TLS and tokens": every command, with the real openssl."""

from __future__ import annotations

import os
import re
import signal
import ssl
import stat
import subprocess
import time
from pathlib import Path

import negbank
from installed_tools import REPOSITORY, tool
from server_process import binary, free_port

PAGE = (REPOSITORY / "docs" / "deploying.md").read_text()
WITHIN = 60.0


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    [section] = re.findall(r"^## By hand, with TLS and tokens\n(.*?)^## ", PAGE, re.S | re.M)
    made, called = (re.findall(r"^\$ (.*)", block, re.M) for block in re.findall(r"```console\n(.*?)```", section, re.S))
    *files, serve = made
    assert serve.startswith("negbank serve ")
    assert len(files) >= 5
    assert len(called) >= 3
    port, probes = free_port(), free_port()
    search = os.pathsep.join([str(binary().parent), str(Path(tool("openssl")).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if name != "NEGBANK_TOKEN"} | {"PATH": search}

    def here(command: str) -> str:
        return command.replace("7700", str(port)) + (f" --probes 127.0.0.1:{probes}" if " doctor " in command else "")

    def done(*lines: str) -> subprocess.CompletedProcess[str]:
        script = "\n".join(["set -e", *map(here, lines)])
        return subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=WITHIN
        )

    def certificate() -> bytes:
        return ssl.PEM_cert_to_DER_cert((tmp_path / "server.crt").read_text())

    def shown() -> bytes:
        """The certificate that a new connection is shown; of the authority, or it is refused here."""
        authority = str(tmp_path / "ca.crt")
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("localhost", port), ca_certs=authority, timeout=WITHIN))

    made_all = done(*files)
    assert made_all.returncode == 0, made_all.stderr
    for secret in ("ca.key", "server.key", "tokens.toml", "trainer.token"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600, secret
    log = (tmp_path / "log").open("w+")
    run = f"exec {here(serve)} --set http.listen=127.0.0.1:{probes} --set server.reload_seconds=1"
    server = subprocess.Popen(["bash", "-c", run], cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        give_up = time.monotonic() + WITHIN
        while "ready banks=" not in (tmp_path / "log").read_text():
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < give_up
            time.sleep(0.02)
        answered = done(*called)
        assert answered.returncode == 0, answered.stdout + answered.stderr
        assert "calls are encrypted and need a token" in answered.stdout
        assert "bank docs" in answered.stdout
        stranger = done(*called[1:])
        assert stranger.returncode != 0
        assert "--token, or NEGBANK_TOKEN" in stranger.stderr
        token = (tmp_path / "trainer.token").read_text().strip()
        client = negbank.connect(f"https://localhost:{port}", token=token, ca=str(tmp_path / "ca.crt"))
        assert [bank.name for bank in client.list_banks()] == ["docs"]

        first = certificate()
        assert shown() == first
        [sign] = [command for command in files if command.startswith("openssl x509 ")]
        renewed = done(sign)
        assert renewed.returncode == 0, renewed.stderr
        second = certificate()
        assert second != first, "its serial number is another"
        give_up = time.monotonic() + WITHIN / 2
        while shown() != second:
            assert time.monotonic() < give_up, (tmp_path / "log").read_text()
            time.sleep(0.1)
        assert [bank.name for bank in client.list_banks()] == ["docs"], "a connection that is open goes on"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(WITHIN)
        log.close()
