"""What a build is made of: told whole, and the same for everybody who builds it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import tomllib

from installed_tools import REPOSITORY, tool


def locked(path: Path) -> set[tuple[str, str]]:
    """Crates and their versions."""
    return {(crate["name"], crate["version"]) for crate in tomllib.loads(path.read_text())["package"]}


def test_the_bill_of_materials_has_each_crate_of_the_binary_with_its_licence() -> None:
    tool("cargo-cyclonedx")
    cargo = tool("cargo")
    subprocess.run(["make", "sbom"], cwd=REPOSITORY, check=True, env=os.environ | {"CARGO": cargo})
    bill = json.loads((REPOSITORY / "target" / "sbom" / "negbank.cdx.json").read_text())
    told = {(part["name"], part["version"]): part for part in bill["components"]}
    tree = [cargo, "tree", "--locked", "--package", "negbank", "--edges", "normal", "--prefix", "none", "--format", "{p}"]
    tree += ["--target", "x86_64-unknown-linux-gnu"]
    lines = subprocess.run(tree, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.splitlines()
    crates = {found.group(1, 2) for line in lines if (found := re.match(r"(\S+) v([^ ]+)", line))}
    linked = {(name, version) for name, version in crates if name != "negbank"}
    assert len(linked) > 100
    assert linked <= told.keys(), linked - told.keys()
    assert told.keys() <= locked(REPOSITORY / "Cargo.lock")
    assert not [name for name, part in told.items() if not part.get("licenses")], "licences"
    assert not [name for name, part in told.items() if not part.get("hashes")], "checksums"


def test_the_fuzzers_are_built_of_the_same_crates() -> None:
    ours, fuzzers = locked(REPOSITORY / "Cargo.lock"), locked(REPOSITORY / "fuzz" / "Cargo.lock")
    # What libFuzzer needs beside.
    assert {name for name, _ in fuzzers - ours} == {"arbitrary", "jobserver", "libfuzzer-sys", "negbank-fuzz"}
