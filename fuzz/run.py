"""Runs each target and reports what was found (`make fuzz`), or keeps a little of what was learned (`make fuzz-seeds`)."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FUZZ = Path(__file__).resolve().parent
# Coverage by libFuzzer needs no sanitizer, and so no nightly compiler.
SANITIZER = ["--sanitizer", "none"]
LIMITS = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536"]
# Of each target, in the repository.
KEPT_BYTES = 8 << 10


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    arguments.add_argument("--keep", action="store_true", help="fuzz nothing: choose anew what fuzz/seeds has")
    arguments.add_argument("--cargo-fuzz", type=Path, required=True, help="the program")
    arguments.add_argument("--work", type=Path, required=True, help="folder of what is built and of what the fuzzer learns")
    arguments.add_argument("--report", type=Path, required=True, help="JSON to write")
    arguments.add_argument("targets", nargs="*", help="all")
    given = arguments.parse_args()

    # cargo-fuzz knows no --locked.
    metadata = [os.environ.get("CARGO", "cargo"), "metadata", "--locked", "--format-version=1", "--no-deps"]
    subprocess.run(metadata, cwd=FUZZ, check=True, stdout=subprocess.DEVNULL)
    environment = os.environ | {"CARGO_TARGET_DIR": str(given.work / "build")}
    subprocess.run([given.cargo_fuzz, "build", *SANITIZER], cwd=FUZZ.parent, env=environment, check=True)
    corpus = given.work / "corpus"
    [built] = {path.parent for path in (given.work / "build").glob("*/release/sample_request")}
    if given.keep:
        for name in given.targets or names():
            keep(built / name, name, corpus / name)
        return
    ran = [run(built / name, name, corpus / name, given) for name in given.targets or names()]
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(json.dumps({"targets": ran}, indent=2) + "\n")
    for target in ran:
        told = "{name:16} {executions:>12,} executions in {seconds:>5.0f} s, corpus {corpus:>5}, crashes {crashes}"
        print(told.format(**target), *target["found"])
    sys.exit(any(target["crashes"] for target in ran))


def names() -> list[str]:
    return re.findall(r'^name = "(\w+)"$', (FUZZ / "Cargo.toml").read_text(), re.MULTILINE)


def run(program: Path, name: str, corpus: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One target, until its time is up or it finds something."""
    found = given.work / "found" / name
    found.mkdir(parents=True, exist_ok=True)
    known = set(found.iterdir())
    corpus.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={given.seconds}", *LIMITS, "-print_final_stats=1"]
    began = time.monotonic()
    # What is new goes to the first folder.
    command = [program, *limits, f"-artifact_prefix={found}/", corpus, *kept(name)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=seeding(corpus))
    seconds = time.monotonic() - began
    executions = re.search(r"^stat::number_of_executed_units:\s+(\d+)", ended.stderr, re.MULTILINE)
    crashes = sorted(set(found.iterdir()) - known)
    if ended.returncode != 0:
        print(f"--- {name}\n{ended.stderr[-6000:]}\n{[str(crash) for crash in crashes]}", file=sys.stderr)
    return {
        "name": name,
        "executions": int(executions.group(1)) if executions else 0,
        "seconds": round(seconds, 1),
        "crashes": max(len(crashes), int(ended.returncode != 0)),
        # The inputs that broke a promise, in target/fuzz/found/NAME; none for a crash that left no input.
        "found": [crash.name for crash in crashes],
        "corpus": sum(1 for _ in corpus.iterdir()),
    }


def kept(name: str) -> list[Path]:
    """The folder of inputs that the repository keeps."""
    folder = FUZZ / "seeds" / name
    return [folder] if folder.is_dir() else []


def seeding(corpus: Path) -> dict[str, str]:
    """The environment in which a target first writes what the real encoders make."""
    return os.environ | {"NEGBANK_FUZZ_SEEDS": str(corpus)}


def keep(program: Path, name: str, corpus: Path) -> None:
    """Of all inputs, the smallest of those by which libFuzzer covers what all of them cover; `found-*` stays in any case."""
    corpus.mkdir(parents=True, exist_ok=True)
    folder = FUZZ / "seeds" / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as fewest:
        command = [program, "-merge=1", *LIMITS, fewest, corpus, folder]
        subprocess.run(command, capture_output=True, check=True, env=seeding(corpus))
        inputs = sorted((path.read_bytes() for path in Path(fewest).iterdir()), key=lambda content: (len(content), content))
    once = {path.read_bytes() for path in folder.glob("found-*")}
    chosen: dict[str, bytes] = {}
    room = KEPT_BYTES
    for content in (content for content in inputs if content not in once):
        room -= len(content)
        if room < 0:
            break
        chosen[hashlib.sha256(content).hexdigest()[:16]] = content
    for path in folder.iterdir():
        if not path.name.startswith("found-") and path.name not in chosen:
            path.unlink()
    for file, content in chosen.items():
        (folder / file).write_bytes(content)
    print(f"{name:16} {len(chosen):>4} of {len(inputs):>5} inputs, {sum(map(len, chosen.values())):>6,} bytes")


if __name__ == "__main__":
    main()
