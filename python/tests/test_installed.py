"""The wheel, as somebody installs it: with numpy and nothing else, and with torch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

from server_process import ServerProcess

WHEELS = Path(__file__).parents[2] / "target" / "wheels"

WITH_NUMPY = """
import sys, numpy as np, negbank
client = negbank.connect(sys.argv[1])
bank = client.create_bank("installed", dim=4)
bank.write(np.arange(20), np.random.default_rng(0).normal(size=(20, 4)), labels=np.arange(20) % 3, step=0)
sampler = negbank.Sampler(bank, negbank.Nearest(2), negbank.Uniform(3), seed=1)
negs = sampler.sample(None, anchor_ids=[1, 2], exclude_same_label=True)
assert negs.embeddings[negs.indices].shape == (2, 5, 4)
import negbank.mining
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torch", "datasets", "sklearn", "scipy", "grpc"}, loaded
client.delete_bank("installed")
"""

WITH_TORCH = """
import sys, torch, negbank
from negbank.torch import Keeper, MomentumEncoder, info_nce, similarities
client = negbank.connect(sys.argv[1])
bank = client.create_bank("installed", dim=4)
encoder = torch.nn.Linear(3, 4)
keeper = Keeper(bank, encode=lambda model, ids: model(torch.ones(len(ids), 3)), every=1)
keeper.collect(encoder(torch.randn(8, 3)), ids=torch.arange(8))
keeper.end_of_step(encoder, 1)
anchors = encoder(torch.randn(2, 3))
negs = bank.sample(anchors, negbank.Nearest(3))
info_nce(anchors.sum(1), similarities(anchors, negs.embeddings[negs.indices])).backward()
assert encoder.weight.grad.abs().sum() > 0
MomentumEncoder(encoder).update(encoder)
for module in ("transformers", "pytorch_lightning", "sklearn"):
    assert module not in sys.modules
try:
    import negbank.huggingface
except ModuleNotFoundError as fault:
    assert fault.name == "transformers"
else:
    raise AssertionError("transformers is not here")
client.delete_bank("installed")
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and numpy; nothing of this one's."""
    wheels = list(WHEELS.glob("negbank-*.whl"))
    if not wheels:
        pytest.fail(f"there is no wheel in {WHEELS}: run `make target/venv/package`")
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    numpy = f"numpy=={distribution('numpy').version}"
    install = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", str(wheels[0]), numpy]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"the wheel could not be installed into a clean environment:\n{done.stderr}")
    return python


def run(python: Path, program: str, server: ServerProcess) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(python), "-W", "error", "-c", program, server.address]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=python.parent)
    assert done.returncode == 0, done.stderr


def test_the_wheel_works_with_numpy_only(clean: Path, server: ServerProcess) -> None:
    run(clean, WITH_NUMPY, server)


def test_the_wheel_works_with_torch_and_nothing_else(clean: Path, server: ServerProcess) -> None:
    """torch and what it imports are linked from here: it is half a gigabyte."""
    site = next(clean.parents[1].glob("lib/python*/site-packages"))
    for name in ["torch", "torchgen", "functorch", "filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "sympy"]:
        found = importlib.util.find_spec(name)
        if found is not None and found.submodule_search_locations:
            (site / name).symlink_to(found.submodule_search_locations[0])
    typing_extensions = importlib.util.find_spec("typing_extensions")
    assert typing_extensions is not None
    assert typing_extensions.origin is not None
    (site / "typing_extensions.py").symlink_to(typing_extensions.origin)
    run(clean, WITH_TORCH, server)
