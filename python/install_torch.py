"""Installs PyTorch for the tests, which compute on the CPU only.

PyPI's wheels for x86-64 Linux want 2.5 GB of CUDA libraries beside them, and load none of themselves without. No test calls
one, so there empty libraries take their place: enough to import torch, not to use a GPU. The installed wheel then no longer
names them among its needs, or pip would fetch them for the next package that builds on torch. Elsewhere the wheels are plain.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TORCH = "torch==2.15.0"
ITS_OWN_NEEDS = ["filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions"]
STAND_IN = "libwithoutcuda.so"


def main() -> None:
    """Does nothing where torch can be imported."""
    if imports():
        return
    pip("install", "--no-deps", "--no-warn-conflicts", TORCH)
    pip("install", "--no-warn-conflicts", *ITS_OWN_NEEDS)
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        site_packages = Path(output(sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))").strip())
        stand_in_for_cuda(site_packages)
        forget_cuda(site_packages)
    if not imports():
        sys.exit("torch was installed and can't be imported")


def stand_in_for_cuda(site_packages: Path) -> None:
    """Makes a library for each that is missing; all share one that has the functions they lack, each of which fails."""
    folder = site_packages / "torch" / "lib"
    own = [library for library in folder.glob("lib*.so*") if library.name != STAND_IN]
    needed = {
        name for library in own for name in re.findall(r"NEEDED.*\[(lib(?:cu|nccl|nv).*)\]", output("readelf", "-d", library))
    }
    missing = sorted(name for name in needed if not (folder / name).exists())
    undefined = {symbol for library in own for symbol in symbols(library, "--undefined-only")}
    defined = {symbol for library in own for symbol in symbols(library, "--defined-only")}
    absent = sorted(symbol for symbol in undefined - defined if re.match(r"cu|nccl|nv|__cuda|__nv", symbol))
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "stand_in.c"
        source.write_text("".join(f"int {symbol}(void) {{ return 100; }}\n" for symbol in absent))
        shared = ["cc", "-w", "-fno-builtin", "-shared", "-fPIC"]
        output(*shared, f"-Wl,-soname,{STAND_IN}", "-o", folder / STAND_IN, source)
        source.write_text("")
        for name in missing:
            linked = ["-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN", f"-L{folder}", f"-l:{STAND_IN}"]
            output(*shared, f"-Wl,-soname,{name}", "-o", folder / name, source, *linked)


def forget_cuda(site_packages: Path) -> None:
    """Takes what the stand-ins replace out of the wheel's list of needs."""
    for metadata in site_packages.glob("torch-*.dist-info/METADATA"):
        lines = metadata.read_text().splitlines(keepends=True)
        metadata.write_text("".join(line for line in lines if not re.match(r"Requires-Dist: (?:cuda|nvidia|triton)\b", line)))


def symbols(library: Path, which: str) -> list[str]:
    """Names of a library's dynamic symbols, without their versions."""
    return [line.split()[-1].partition("@")[0] for line in output("nm", "-D", which, library).splitlines() if line.strip()]


def imports() -> bool:
    """Whether torch is there and whole."""
    return subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=False).returncode == 0


def pip(*arguments: str) -> None:
    """Runs pip in this environment."""
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


def output(*command: str | Path) -> str:
    """What a command says; ends with its error if it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
