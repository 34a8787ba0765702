"""`helm upgrade`: what a StatefulSet can't change stays as it is, and for the claim's size the page says what to do."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from chart import CHART, KUBERNETES, OPEN, Manifest, helm, of_kind, parsed, rendered
from installed_tools import REPOSITORY

DEFAULT, EVERYTHING = (CHART / "ci" / f"{name}-values.yaml" for name in ("default", "everything"))
PAGE = (REPOSITORY / "docs" / "deploying.md").read_text()
# What Kubernetes 1.27, the oldest that Chart.yaml allows, lets be changed of a StatefulSet's spec.
CHANGEABLE = {"replicas", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds"}
# Of the claim, each value that is not the default.
OF_THE_CLAIM = {
    "size": "size=40Gi",
    "annotations": "annotations.a=b",
    "storageClass": "storageClass=fast",
    "accessModes": "accessModes={ReadWriteMany}",
    "enabled": "enabled=false",
    "existingClaim": "existingClaim=mine",
}


def fixed(manifests: list[Manifest]) -> Manifest:
    """What is one StatefulSet's for as long as it is there."""
    [stateful_set] = of_kind("StatefulSet", manifests)
    names = {key: stateful_set["metadata"][key] for key in ("name", "namespace")}
    return names | {key: value for key, value in stateful_set["spec"].items() if key not in CHANGEABLE}


def test_an_upgrade_to_any_other_values_changes_nothing_that_is_fixed(tmp_path: Path) -> None:
    values = yaml.safe_load(EVERYTHING.read_text())
    # Another full name is another StatefulSet; and of the claim the page tells.
    del values["fullnameOverride"], values["persistence"]
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    before, after = rendered(DEFAULT), rendered(file)
    assert of_kind("StatefulSet", before) != of_kind("StatefulSet", after)
    assert {"selector", "serviceName", "volumeClaimTemplates"} <= fixed(before).keys()
    assert fixed(after) == fixed(before)


@pytest.mark.parametrize("of_the_claim", OF_THE_CLAIM)
def test_what_persistence_says_of_the_claim_is_fixed_and_the_page_says_what_to_do(of_the_claim: str) -> None:
    before, after = fixed(rendered(DEFAULT)), fixed(rendered(DEFAULT, "--set", f"persistence.{OF_THE_CLAIM[of_the_claim]}"))
    assert {key for key in before if after.get(key) != before[key]} == {"volumeClaimTemplates"}
    assert f"persistence.{of_the_claim}`" in section() or f"`{of_the_claim}`" in section()


def test_there_are_no_other_values_of_the_claim() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())["persistence"]
    assert values.keys() - OF_THE_CLAIM.keys() == {"whenDeleted"}
    assert fixed(rendered(DEFAULT, "--set", "persistence.whenDeleted=Delete")) == fixed(rendered(DEFAULT))


def test_the_commands_for_a_larger_volume_name_what_the_chart_makes() -> None:
    commands = [shlex.split(line) for line in section().splitlines() if line.startswith("$ ")]
    patch, delete, upgrade = (command[1:] for command in commands)
    assert "No test runs these three commands: they need a cluster." in section()

    reuse = "--reset-then-reuse-values"
    assert reuse in helm("upgrade", "--help")
    assert upgrade[:2] == ["helm", "upgrade"]
    arguments = [argument for argument in upgrade[2:] if argument != reuse]
    arguments[1] = str(REPOSITORY / arguments[1])
    shown = helm("template", "--kube-version", KUBERNETES[-1], "--set", OPEN, *arguments)
    [stateful_set] = of_kind("StatefulSet", parsed(shown))
    name, [claim] = stateful_set["metadata"]["name"], stateful_set["spec"]["volumeClaimTemplates"]

    assert delete == ["kubectl", "delete", "statefulset", name, "--cascade=orphan"]
    assert patch[:-1] == ["kubectl", "patch", "pvc", f"{claim['metadata']['name']}-{name}-0", "--patch"]
    assert json.loads(patch[-1])["spec"]["resources"] == claim["spec"]["resources"]


def section() -> str:
    """The page's, on a larger volume."""
    [text] = [part for part in PAGE.split("\n### ") if part.startswith("A larger volume\n")]
    return text.split("\n## ")[0]
