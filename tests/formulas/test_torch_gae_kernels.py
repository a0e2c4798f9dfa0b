"""The kernels as they are compiled for a GPU; Triton's interpreter holds what they compute to the spec."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

from torch_impl import kernels

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tests.campaigns import ROOT
from torch_impl import gae as in_torch
from torch_impl.kernels import gae

operations: Any = in_torch

HOPPER = GPUTarget("cuda", 90, 32)
WIDE = {"fp64": tl.float64, "fp32": tl.float32, "bf16": tl.float32, "fp16": tl.float32}


SHAPES = {
    "long rows of discounted returns": (
        gae._rows,
        {"ADVANTAGES": False, "SEGMENTS": 1, "VALUES": False},
        gae.COLUMNS,
    ),
    "long rows of advantages": (gae._rows, {"ADVANTAGES": True, "SEGMENTS": 1}, gae.COLUMNS),
    "short rows of advantages": (gae._rows, {"ADVANTAGES": True, "SEGMENTS": 1}, 64),
    "segments of advantages": (gae._rows, {"ADVANTAGES": True, "SEGMENTS": 128}, gae.COLUMNS),
    "maps of segments": (gae._maps, {}, gae.COLUMNS),
}


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", WIDE)
def test_kernels_keep_to_registers(dtype: str, shape: str, tmp_path: Path) -> None:
    """Compiled ahead of time, where no GPU is, for compute capability 9.0: no stack in local memory."""
    kernel, options, columns = SHAPES[shape]
    wide = "fp64" if dtype == "fp64" else "fp32"
    tokens = gae.BYTES // (8 if dtype == "fp64" else 4)
    tile = min(columns, tokens)
    signature = dict.fromkeys(("rewards", "values", "last", "result"), f"*{dtype}")
    signature |= dict.fromkeys(("factors", "maps"), f"*{wide}")
    signature |= dict.fromkeys(("rows", "width", "span"), "i32") | {"mask": "*i1", "ends": "*i32"}
    signature = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    constants = {"VALUES": True, **options, "WIDE": WIDE[dtype], "TILE": tile, "ROWS": tokens // tile}
    compiled = triton.compile(ASTSource(kernel, signature, constants), target=HOPPER)
    assert _stack(compiled.asm["cubin"], tmp_path) == [0]


INTERPRETED = """
import itertools
import torch
from torch_impl.gae import discounted_returns, gae
from torch_impl.kernels import gae as kernels

def both(rewards, values, mask, last, **options):
    given = rewards, values, mask, last
    return kernels.lambda_returns(*given, **options, advantages=True), gae(*given, **options)

mask, narrow = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bfloat16)
for values, last in ((1 + 2.0**-10, 1.0), (0.0, torch.inf)):
    given = narrow, torch.full((1, 2), values), mask, torch.full((1,), last)
    print(*(found.tolist() for found in both(*given, gamma=1.0, lam=0.5, masked="skip")), sep=";")

kernels.COLUMNS, kernels.BYTES = 4, 64
generator = torch.Generator().manual_seed(0)
for kernels.PROGRAMS, width, masked in itertools.product((1, 5, 99), (1, 3, 37), ("skip", "zero")):
    mask = torch.rand(5, width, generator=generator) < 0.6
    rewards, values = torch.randn(2, 5, width, dtype=torch.float64, generator=generator)
    last = torch.randn(5, dtype=torch.float64, generator=generator)
    kernel, plain = both(rewards, values, mask, last, gamma=0.9, lam=0.8, masked=masked)
    sums = kernels.discounted_returns(rewards, mask, last, gamma=0.9)
    for one, other in ((kernel, plain), (sums, discounted_returns(rewards, mask, last, gamma=0.9))):
        print(torch.allclose(one, other, rtol=2.0**-46, atol=2.0**-46))  # 2⁷ roundoffs: a row takes as many
"""


def test_what_kernels_compute_beside_the_same_in_plain_pytorch() -> None:
    """By the interpreter: dtypes that differ, an endless bootstrap value, rows in segments of tiles.

    1 + 2⁻¹⁰ is 1 in bfloat16, and what is left of it is not; ∞ times 0 is NaN. 2⁻⁴⁶ is a roundoff of float64
    for each of the operations that a row of 37 tokens takes.
    """
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    command = [sys.executable, "-W", "ignore", "-c", INTERPRETED]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    narrow, endless, *segments = done.stdout.splitlines()
    assert narrow.split(";") == [f"[[{-(2.0**-11)}, {-(2.0**-10)}]]"] * 2
    assert endless.split(";") == ["[[inf, inf]]"] * 2
    assert segments == ["True"] * 36


@pytest.mark.parametrize(
    ("programs", "tiles", "multiprocessors", "count"),
    [(1, 128, 132, 128), (16, 128, 132, 66), (1056, 128, 132, 1), (4096, 1, 132, 1), (1, 1, 132, 1)],
)
def test_few_long_rows_are_cut_into_segments(
    programs: int, tiles: int, multiprocessors: int, count: int
) -> None:
    """As many as give each multiprocessor its share of programs, and no more than tiles."""
    assert gae.segments(programs, tiles, multiprocessors) == count


def _stack(binary: Any, folder: Path) -> list[int]:
    """The bytes of local memory that each function of a binary has as its stack."""
    file = folder / "kernel.cubin"
    file.write_bytes(binary)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    said = subprocess.run([tool, "-res-usage", file], check=True, capture_output=True, text=True).stdout
    return [int(size) for size in re.findall(r"STACK:(\d+)", said)]


def test_operations_hand_their_arguments_on_to_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, and only where a kernel serves the arrays of which gradients may be wanted."""
    rewards, values, mask, last = torch.ones(2, 3), torch.zeros(2, 3), torch.ones(2, 3) > 0, torch.ones(2)
    asked: list[set[int]] = []

    def serve(*arrays: torch.Tensor) -> bool:
        asked.append(set(map(id, arrays)))
        return True

    monkeypatch.setattr(kernels, "serve", serve)
    for name in ("lambda_returns", "discounted_returns"):
        monkeypatch.setattr(gae, name, lambda *given, **options: (given, options))
    options = {"gamma": 0.9, "lam": 0.8, "masked": "zero"}
    given = rewards, values, mask, last
    assert operations.gae(*given, **options) == (given, options | {"advantages": True})
    assert operations.lambda_returns(*given, **options) == (given, options | {"advantages": False})
    assert operations.discounted_returns(rewards, mask, last, gamma=0.9) == (
        (rewards, mask, last),
        {"gamma": 0.9},
    )
    assert asked == [{id(rewards)}, {id(rewards)}, {id(rewards), id(last)}]


class Elsewhere:
    """What there is to see of an array on some device."""

    def __init__(self, device: str, *, requires_grad: bool = False) -> None:
        self.device, self.requires_grad = torch.device(device), requires_grad


def test_what_kernels_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain arrays on a CUDA device, where nothing is recorded, compiled or differentiated forwards."""
    monkeypatch.setattr(kernels, "Tensor", Elsewhere)
    assert kernels.TRITON
    there, here, leaf = Elsewhere("cuda"), Elsewhere("cpu"), Elsewhere("cuda", requires_grad=True)
    serve: Any = kernels.serve
    assert serve(there, there)
    assert not serve(there, here)
    assert not serve(there, leaf)
    with torch.no_grad():
        assert serve(there, leaf)
    with forward_ad.dual_level():
        assert not serve(there)
    with monkeypatch.context() as patched:
        patched.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not serve(there)
    monkeypatch.setattr(kernels, "Tensor", torch.Tensor)  # of which that is another kind
    assert not serve(there)
