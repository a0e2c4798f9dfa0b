"""The kernels as they are compiled for a GPU; Triton's interpreter holds what they compute to the spec."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from torch_impl import kernels

if not kernels.TRITON:
    pytest.skip("Triton is not installed", allow_module_level=True)

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tests.campaigns import ROOT
from torch_impl.kernels import gae

HOPPER = GPUTarget("cuda", 90, 32)
WIDE = {"fp64": tl.float64, "fp32": tl.float32, "bf16": tl.float32, "fp16": tl.float32}


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("advantages", [True, False])
@pytest.mark.parametrize("holes_are_steps", [True, False])
@pytest.mark.parametrize("dtype", WIDE)
def test_rows_of_returns_keep_to_registers(
    dtype: str, holes_are_steps: bool, advantages: bool, tmp_path: Path
) -> None:
    """Compiled ahead of time, where no GPU is, for compute capability 9.0: no stack in local memory."""
    factors = "fp64" if dtype == "fp64" else "fp32"
    pointers = dict.fromkeys(("rewards", "values", "last", "result"), f"*{dtype}")
    signature = {**pointers, "mask": "*i1", "factors": f"*{factors}", "width": "i32"}
    constants = {
        "ADVANTAGES": advantages,
        "HOLES_ARE_STEPS": holes_are_steps,
        "WIDE": WIDE[dtype],
        "TILE": gae.TILE,
    }
    names = gae._rows.arg_names
    signature = {name: signature.get(name, "constexpr") for name in names}
    compiled = triton.compile(ASTSource(gae._rows, signature, constants), target=HOPPER)
    assert _stack(compiled.asm["cubin"], tmp_path) == [0]


INTERPRETED = """
import torch
from torch_impl.gae import gae
from torch_impl.kernels.gae import lambda_returns as kernel

mask, narrow = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bfloat16)
for values, last in ((1 + 2.0**-10, 1.0), (0.0, torch.inf)):
    given = narrow, torch.full((1, 2), values), mask, torch.full((1,), last)
    options = {"gamma": 1.0, "lam": 0.5, "masked": "skip"}
    print(kernel(*given, **options, advantages=True).tolist(), gae(*given, **options).tolist(), sep=";")
"""


def test_values_wider_than_rewards_and_an_endless_one_behind_the_end() -> None:
    """1 + 2⁻¹⁰ is 1 in bfloat16, and what is left of it is not; ∞ times 0 is NaN. By the interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", INTERPRETED]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    lines = [line.split(";") for line in done.stdout.splitlines()]
    assert lines == [[f"[[{-(2.0**-11)}, {-(2.0**-10)}]]"] * 2, ["[[inf, inf]]"] * 2]


def _stack(binary: Any, folder: Path) -> list[int]:
    """The bytes of local memory that each function of a binary has as its stack."""
    file = folder / "kernel.cubin"
    file.write_bytes(binary)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    said = subprocess.run([tool, "-res-usage", file], check=True, capture_output=True, text=True).stdout
    return [int(size) for size in re.findall(r"STACK:(\d+)", said)]
