"""Runs each target of fuzz/ for a while and reports what was found; see `make fuzz`."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
# Coverage by libFuzzer needs no sanitizer, and so no nightly compiler.
SANITIZER = ["--sanitizer", "none"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    arguments.add_argument("--cargo-fuzz", type=Path, required=True, help="the program")
    arguments.add_argument("--work", type=Path, required=True, help="folder of what is built and of what the fuzzer learns")
    arguments.add_argument("--report", type=Path, required=True, help="JSON to write")
    arguments.add_argument("targets", nargs="*", help="all")
    given = arguments.parse_args()

    shutil.copy(FUZZ.parent / "Cargo.lock", FUZZ / "Cargo.lock")
    environment = os.environ | {"CARGO_TARGET_DIR": str(given.work / "build")}
    subprocess.run([given.cargo_fuzz, "build", *SANITIZER], cwd=FUZZ.parent, env=environment, check=True)
    corpus = given.work / "corpus"
    [built] = {path.parent for path in (given.work / "build").glob("*/release/sample_request")}
    ran = [run(built / name, name, corpus / name, given) for name in given.targets or names()]
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(json.dumps({"targets": ran}, indent=2) + "\n")
    for target in ran:
        told = "{name:16} {executions:>12,} executions in {seconds:>5.0f} s, corpus {corpus:>5}, crashes {crashes}"
        print(told.format(**target))
    sys.exit(any(target["crashes"] for target in ran))


def names() -> list[str]:
    return re.findall(r'^name = "(\w+)"$', (FUZZ / "Cargo.toml").read_text(), re.MULTILINE)


def run(program: Path, name: str, corpus: Path, given: argparse.Namespace) -> dict[str, object]:
    """One target, until its time is up or it finds something."""
    found = given.work / "found" / name
    found.mkdir(parents=True, exist_ok=True)
    known = set(found.iterdir())
    corpus.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={given.seconds}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"]
    once = FUZZ / "corpus" / name
    folders = [corpus, *([once] if once.is_dir() else [])]
    began = time.monotonic()
    command = [program, *limits, f"-artifact_prefix={found}/", *folders]
    environment = os.environ | {"NEGBANK_FUZZ_SEEDS": str(corpus)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
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
        "corpus": sum(1 for _ in corpus.iterdir()),
    }


if __name__ == "__main__":
    main()
