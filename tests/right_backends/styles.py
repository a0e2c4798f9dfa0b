"""The right backends: what makes each of them odd, and the dtypes in which its style is right."""

from dataclasses import dataclass
from pathlib import Path

WIDE = ("float64", "float32")
HALF = ("bfloat16", "float16")
ALL = (*WIDE, *HALF)


@dataclass(frozen=True)
class Style:
    """A right backend: its module in this folder or its registered name, what is odd about it, its dtypes."""

    module: str
    what: str
    dtypes: tuple[str, ...]

    @property
    def backend(self) -> str:
        """What `--backend` takes."""
        file = Path(__file__).with_name(f"{self.module}.py")
        return str(file) if file.exists() else self.module


STYLES = (
    Style("reference", "the reference itself: float64 inside", (*WIDE, "float16")),
    Style("torch_impl", "the PyTorch implementation that comes with the spec", ALL),
    Style("closed_rows", "the same without reading masks, every row closed up", ALL),
    Style("as_if_large", "the same on the paths that large inputs take", ALL),
    Style("linear_head", "the same through an output head, logits in chunks", ALL),
    Style("triton_interpreted", "the Triton kernels, by Triton's interpreter", ALL),
    Style("columns", "NumPy, column by column", WIDE),
    Style("token_lists", "NumPy, a list of tokens for each row", WIDE),
    Style("scan", "JAX, lax.scan", WIDE),
    Style("other_associations", "sums in another order", WIDE),
    Style("matrix_blocks", "blocks of time as triangular matrices", WIDE),
    Style("doubling", "pairwise: prefix sums by doubling", WIDE),
    Style("float64_inside", "float64 inside, rounded once", ("float32",)),
    Style("torch_columns", "PyTorch, half precision all the way", ALL),
    Style("torch_importance_sampling", "PyTorch, autograd", ALL),
    Style("torch_kl", "PyTorch, autograd", ALL),
    Style("torch_policy_loss", "PyTorch, autograd", ALL),
    Style("torch_value_loss", "PyTorch, autograd", ALL),
    Style("torch_reward", "PyTorch, autograd", ALL),
    Style("torch_preference", "PyTorch, autograd", ALL),
    Style("torch_group", "PyTorch, autograd", ALL),
    Style("torch_trust_region", "PyTorch", ALL),
    Style("torch_training", "PyTorch, autograd", (*WIDE, "bfloat16")),
    Style("numpy_training", "NumPy, gradients by hand", WIDE),
    Style("widened", "PyTorch, a wider dtype inside, rounded once", ("float32", *HALF)),
    Style("sums_in_sequence", "PyTorch, sums from the first token to the last", ALL),
    Style("sums_pairwise", "PyTorch, sums half and half", ALL),
    Style("chunked", "PyTorch, micro-batches, chunks of the vocabulary", ALL),
    Style("log_space", "PyTorch, logarithms as long as possible", ALL),
    Style("number_by_number", "NumPy scalars, sums from the first to the last", (*WIDE, "float16")),
    Style("jax_losses", "JAX, jit and vjp", ALL),
    Style("compiled", "PyTorch, torch.compile", ALL),
)
