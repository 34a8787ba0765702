"""docs/debugging.md: every command, in order, against a real server with the real grpcurl, whoever may call it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from chart import CHART, of_kind, rendered
from installed_tools import REPOSITORY, tool
from server_process import ServerProcess, binary

PAGE = (REPOSITORY / "docs" / "debugging.md").read_text()
# What is built, checked or awaited in the background has shown by then.
WITHIN = 60.0
PROGRAMS = ("grpcurl", "curl", "awk")
OURS, BUILT_IN = "negbank", "echo"
HOST = "negbank.train.svc"
# What a server asks of its callers.
DOORS: list[set[str]] = [set(), {"TLS"}, {"tokens"}, {"TLS", "clients' certificates", "tokens"}]
# The page says of it that no test runs it.
NOT_RUN = "kubectl port-forward statefulset/negbank 7700 7701"


def commands() -> list[tuple[str, str]]:
    """The page's commands, each with the output shown under it."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.S | re.M)
    shown = [re.split(r"^\$ ", block, flags=re.M)[1:] for block in blocks]
    return [parted(entry) for block in shown for entry in block]


def parted(entry: str) -> tuple[str, str]:
    """A command goes on while a quote is open, or after a backslash or a pipe."""
    lines = entry.splitlines()
    end = 1
    while lines[end - 1].endswith(("\\", "|")) or "\n".join(lines[:end]).count("'") % 2:
        end += 1
    return "\n".join(lines[:end]), "\n".join(lines[end:])


def table() -> dict[str, tuple[list[str], list[str]]]:
    """What the page's table has grpcurl and negbank's commands take, by what the server has."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")][1:]
    return {
        re.sub(r" \(.*", "", has): (re.findall("`(.+?)`", grpcurl), re.findall("`(.+?)`", own)) for has, grpcurl, own in rows
    }


def inline() -> list[str]:
    """What stands in the text as code and is more than a word, or is a flag."""
    text = re.sub(r"^```.*?^```", "", PAGE, flags=re.S | re.M)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return [span for span in spans if " " in span or span.startswith("-")]


@dataclass
class Door:
    """A server, the folder with what its callers need, and what it asks of them."""

    server: ServerProcess
    folder: Path
    asks: set[str]
    token: str | None

    def passed(self, command: str) -> str:
        """The page's command, with what the page's table says instead of, or beside, its flags."""
        for has, (grpcurl, own) in table().items():
            if has not in self.asks:
                continue
            if has == "TLS":
                encrypted, plain = grpcurl
                command = command.replace(plain, encrypted).replace("--address 127.0.0.1:7700", own[0])
            else:
                command = command.replace("grpcurl ", " ".join(["grpcurl", *grpcurl, ""]))
                command = re.sub(r"^negbank \w+ ", rf"\g<0>{' '.join([*own, ''])}", command)
        command = command.replace("NAME", HOST).replace("127.0.0.1:7701", str(self.server.probes))
        return command.replace("127.0.0.1:7700", self.server.address)

    def ran(self, command: str) -> str:
        """What it prints, errors too."""
        folders = [*(str(Path(tool(name)).parent) for name in PROGRAMS), str(binary().parent), os.environ["PATH"]]
        environment = {name: value for name, value in os.environ.items() if name != "NEGBANK_TOKEN"}
        environment |= {"PATH": os.pathsep.join(folders)} | ({"NEGBANK_TOKEN": self.token} if self.token else {})
        run = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        return run.stdout


@pytest.fixture(scope="module", params=DOORS, ids=lambda asks: ", ".join(sorted(asks)) or "in the clear")
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder, asks, token = tmp_path_factory.mktemp("door"), request.param, None
    start, _ = commands()[0]
    settings = re.findall(r"--set (\S+)", start)
    assert start.startswith("negbank serve")
    assert settings
    if "TLS" in asks:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.crt")
        own = authority.issue_cert("trainer@localhost")
        own.cert_chain_pems[0].write_to_path(folder / "client.crt")
        own.private_key_pem.write_to_path(folder / "client.key")
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        settings += [f"tls.certificate={folder}/server.pem", f"tls.key={folder}/server.pem"]
    if "clients' certificates" in asks:
        settings += [f"tls.client_ca={folder}/ca.crt"]
    if "tokens" in asks:
        make = ["token", "--subject", "me", "--role", "admin", "--bank", "*", "--append", str(folder / "tokens.toml")]
        token = subprocess.run([str(binary()), *make], check=True, capture_output=True, text=True).stdout.strip()
        settings += [f"auth.tokens={folder}/tokens.toml"]
    process = ServerProcess("http.listen=127.0.0.1:0", *settings)
    yield Door(process, folder, asks, token)
    process.stop()


def test_every_command_prints_what_the_page_shows(door: Door) -> None:
    asked = commands()[1:]
    assert len(asked) >= 20
    for command, shown in asked:
        assert command.startswith((*PROGRAMS, OURS, BUILT_IN)), command
        here = door.passed(command)
        give_up = time.monotonic() + WITHIN
        while not is_shown(printed := door.ran(here), shown):
            # Looking again changes nothing; any other command is given once.
            looks_again = "GetBank" in command and time.monotonic() < give_up
            assert looks_again, f"$ {here}\n{printed}\nis not what the page shows:\n{shown}"
            time.sleep(0.2)


def test_without_what_the_table_says_nobody_is_let_in(door: Door) -> None:
    [grpcurl] = [command for command, _ in commands() if "Banks/CreateBank" in command and '"pets"' in command]
    [own] = [command for command, _ in commands() if command.startswith("negbank doctor")]
    # Without TLS there are no certificates either.
    for has in sorted(door.asks - ({"TLS"} if "clients' certificates" in door.asks else set())):
        less = Door(door.server, door.folder, door.asks - {has}, None if has == "tokens" else door.token)
        told = less.ran(less.passed(grpcurl).replace("grpcurl", "grpcurl -connect-timeout 2", 1))
        assert "Unauthenticated" in told or "Failed to dial" in told, f"without {has}: {told}"
        told = less.ran(less.passed(own))
        assert "FAIL  calls" in told, f"without {has}: {told}"


def test_what_stands_in_the_text_is_run_too_but_for_one_command() -> None:
    shown = [command for command, _ in commands()]
    taken = [flag for grpcurl, own in table().values() for flag in grpcurl + own]
    assert set(table()) == set().union(*DOORS)
    rest = [span for span in inline() if span not in taken and not any(command.startswith(f"{span} ") for command in shown)]
    assert rest == [NOT_RUN]
    assert f"`{NOT_RUN}` (the one command here that no test runs: it needs a cluster)" in " ".join(PAGE.split())


def test_the_command_that_is_not_run_names_what_the_chart_makes() -> None:
    named = re.fullmatch(r"kubectl port-forward statefulset/(\S+) (\d+) (\d+)", NOT_RUN)
    assert named
    [stateful_set] = of_kind("StatefulSet", rendered(CHART / "ci" / "default-values.yaml", release="negbank"))
    assert stateful_set["metadata"]["name"] == named[1]
    ports = stateful_set["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert {int(named[2]), int(named[3])} == {port["containerPort"] for port in ports}


def test_the_page_is_compared_line_by_line() -> None:
    assert is_shown("a\nb 1\nc", "a\nb …\nc")
    assert is_shown("a\nb\nc", "a\n…")
    assert is_shown("a\nb\nc", "…\nc")
    assert not is_shown("a\nb\nc", "a\nc")
    assert not is_shown("a\nb\nc", "…\nb")
    assert not is_shown("a", "")
    assert parted("curl 'a\nb' | \\\n c\nout") == ("curl 'a\nb' | \\\n c", "out")


def is_shown(printed: str, shown: str) -> bool:
    """Whether that is what was printed: a `…` is the rest of its line, and on a line of its own any lines."""
    wanted = (r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in shown.splitlines())
    text = printed.rstrip() + "\n" if printed.strip() else ""
    return re.fullmatch("".join(wanted), text) is not None
