"""The right backends: what makes each of them odd, and the dtypes in which its style is right."""

from dataclasses import dataclass

WIDE = ("float64", "float32")
ALL = (*WIDE, "bfloat16", "float16")


@dataclass(frozen=True)
class Style:
    """A right backend: its module in this folder, what is odd about it, the dtypes that it serves."""

    module: str
    what: str
    dtypes: tuple[str, ...]


STYLES = (
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
)
