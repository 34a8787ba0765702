"""The Helm chart, rendered by the real helm."""

from __future__ import annotations

import copy
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from installed_tools import REPOSITORY, tool

DEPLOY = REPOSITORY / "deploy"
CHART = DEPLOY / "helm" / "negbank"
SIDECAR = CHART / "values-memory-only-sidecar.yaml"
VALUES = [*sorted((CHART / "ci").glob("*.yaml")), SIDECAR]
# The oldest that Chart.yaml allows, one in between, and the newest whose schemas are there.
KUBERNETES = ["1.27.0", "1.31.0", "1.37.0"]
OPEN = "insecureListen=true"

Manifest = dict[str, Any]


def helm(*arguments: str) -> str:
    """What the real helm prints."""
    run = subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"helm {' '.join(arguments)}\n{run.stdout}{run.stderr}"
    return run.stdout


def refusal(*flags: str) -> str:
    """What helm says when it will not render the chart."""
    command = [tool("helm"), "template", "r", str(CHART), "--kube-version", KUBERNETES[-1], *flags]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode != 0, f"{flags} were taken"
    return run.stderr


def rendered(values: Path, *flags: str, release: str = "r", kubernetes: str = KUBERNETES[-1]) -> list[Manifest]:
    """The manifests under these values."""
    return copy.deepcopy(_rendered(values, flags, release, kubernetes))


@cache
def _rendered(values: Path, flags: tuple[str, ...], release: str, kubernetes: str) -> list[Manifest]:
    command = ["template", release, str(CHART), "--kube-version", kubernetes, "--values", str(values), *flags]
    return parsed(helm(*command))


def parsed(text: str) -> list[Manifest]:
    """The documents of a stream of YAML."""
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(kind: str, manifests: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]
