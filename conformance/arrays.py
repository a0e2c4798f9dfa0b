"""Hand arrays to a backend's library, read results back, ask for gradients: NumPy, PyTorch, JAX.

A backend names its library (`array_library = "torch"`) or brings its own `asarray`, `to_numpy` and
`gradient` with the meanings of the methods below. Arrays cross as NumPy arrays: float64 holding values
that the dtype represents exactly, booleans for masks, int64 for ids.
"""

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

Function = Callable[..., Any]
Settings = dict[str, tuple[Any, Callable[[Any], Any]]]
"""What a library is set to, by name, and the function that sets it."""

HOOKS = ("asarray", "to_numpy", "gradient")


@dataclass
class Differentiated:
    """What came of asking for gradients."""

    gradients: Sequence[Any]
    result: Any = None
    """What the function returned on the way, where that is known."""
    changed: list[str] = field(default_factory=list)
    """What the call or its backward pass changed beside the arrays, in words."""


class NumpyArrays:
    """NumPy: no gradients, no bfloat16."""

    def asarray(self, x: np.ndarray, dtype: str, device: str) -> Any:
        """Make a writable array of the named dtype."""
        if device != "cpu":
            raise ValueError(f"NumPy arrays live on the cpu, not on {device!r}")
        try:
            return np.array(x, dtype=dtype)
        except TypeError as error:
            raise ValueError(f"NumPy has no dtype {dtype}") from error

    def to_numpy(self, x: Any) -> np.ndarray:
        """Read a result; only arrays and NumPy scalars are results."""
        if not isinstance(x, np.ndarray | np.generic):
            raise TypeError(f"expected a NumPy array, got {_kind(x)}")
        return np.asarray(x)

    def expand(self, x: Any, shape: tuple[int, ...]) -> Any:
        """Repeat an array along its axes of length 1, without a copy."""
        return np.broadcast_to(x, shape)

    def gradient(
        self, function: Callable[..., Any], arrays: Sequence[Any], cotangent: np.ndarray
    ) -> list[Any]:
        """NumPy does not differentiate."""
        return list(self.differentiate(function, arrays, cotangent).gradients)

    def differentiate(
        self, function: Function, arrays: Sequence[Any], cotangent: np.ndarray, way: str = "plain"
    ) -> Differentiated:
        """NumPy does not differentiate."""
        raise NotImplementedError("a NumPy backend offers no gradients")


class TorchArrays:
    """PyTorch tensors, on any device."""

    def __init__(self) -> None:
        self.torch: Any = importlib.import_module("torch")

    def asarray(self, x: np.ndarray, dtype: str, device: str) -> Any:
        """Make a tensor of the named dtype on the device."""
        return self.torch.tensor(x, dtype=getattr(self.torch, dtype), device=device)

    def to_numpy(self, x: Any) -> np.ndarray:
        """Read a tensor; floating types widen to float64, which holds each of them exactly."""
        if not isinstance(x, self.torch.Tensor):
            raise TypeError(f"expected a torch.Tensor, got {_kind(x)}")
        x = x.detach().cpu()
        return np.asarray((x.double() if x.is_floating_point() else x).numpy())

    def expand(self, x: Any, shape: tuple[int, ...]) -> Any:
        """Repeat a tensor along its axes of length 1, without a copy."""
        return x.expand(shape)

    def without_gradients(self) -> AbstractContextManager[Any]:
        """Record nothing for a backward pass meanwhile."""
        manager: AbstractContextManager[Any] = self.torch.no_grad()
        return manager

    def settings(self) -> Settings:
        """What a call has to leave as it is: whether PyTorch records, and its default dtype."""
        recording, dtype = self.torch.is_grad_enabled(), self.torch.get_default_dtype()
        return {
            "torch.set_grad_enabled": (recording, self.torch.set_grad_enabled),
            "torch.set_default_dtype": (dtype, self.torch.set_default_dtype),
        }

    def gradient(
        self, function: Callable[..., Any], arrays: Sequence[Any], cotangent: np.ndarray
    ) -> list[Any]:
        """Differentiate Σ cotangent · function(*arrays) with respect to each array."""
        return list(self.differentiate(function, arrays, cotangent).gradients)

    def differentiate(
        self, function: Function, arrays: Sequence[Any], cotangent: np.ndarray, way: str = "plain"
    ) -> Differentiated:
        """As `gradient`, with what else is seen; the leaves lie where the arrays do.

        The upstream gradient lies as PyTorch itself may hand it on: plainly, as a view of every second number
        ("strided"), or, of numbers that are the same in each row or in all, with strides of 0 ("expanded").
        "again" puts another call before the backward pass, which is made twice.
        """
        leaves = [x.detach().requires_grad_(True) for x in arrays]
        result = function(*leaves)
        if not result.requires_grad:
            return Differentiated([self.torch.zeros_like(x) for x in leaves], result)
        upstream = self.torch.tensor(cotangent, dtype=result.dtype, device=result.device)
        given = self._lying(upstream, way) if upstream.numel() and upstream.ndim else upstream.clone()
        pull_back = partial(self.torch.autograd.grad, result, leaves, given, allow_unused=True)
        if way == "again":
            function(*(x.detach().flatten().flip(0).view(x.shape).requires_grad_(True) for x in arrays))
            pull_back = partial(_twice, pull_back)
        found = pull_back()
        slopes = [self.torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]
        changed = [] if self.torch.equal(given, upstream) else ["its upstream gradient"]
        changed += ["the grad of an argument"] if any(x.grad is not None for x in leaves) else []
        return Differentiated(slopes, result, changed)

    def _lying(self, upstream: Any, way: str) -> Any:
        """The same numbers, some place of their own or not."""
        if way == "strided":
            return self.torch.stack([upstream, -1 - upstream], dim=-1)[..., 0]
        if way == "expanded":
            first = upstream.flatten()[0].clone()
            of_rows = upstream[..., :1].clone()
            return (
                first.expand(upstream.shape)
                if bool((upstream == first).all())
                else of_rows.expand_as(upstream)
            )
        return upstream.clone()


class JaxArrays:
    """JAX arrays; float64 is switched on."""

    def __init__(self) -> None:
        self.jax: Any = importlib.import_module("jax")
        self.jax.config.update("jax_enable_x64", True)

    def asarray(self, x: np.ndarray, dtype: str, device: str) -> Any:
        """Make an array of the named dtype on the device."""
        return self.jax.device_put(self.jax.numpy.asarray(x, dtype=dtype), self.jax.devices(device)[0])

    def to_numpy(self, x: Any) -> np.ndarray:
        """Read an array; floating types widen to float64, which holds each of them exactly."""
        if not isinstance(x, self.jax.Array):
            raise TypeError(f"expected a jax.Array, got {_kind(x)}")
        floating = self.jax.numpy.issubdtype(x.dtype, self.jax.numpy.floating)
        return np.asarray(x, dtype=np.float64) if floating else np.asarray(x)

    def settings(self) -> Settings:
        """What a call has to leave as it is: whether JAX has float64."""
        name = "jax_enable_x64"
        return {name: (self.jax.config.read(name), partial(self.jax.config.update, name))}

    def gradient(
        self, function: Callable[..., Any], arrays: Sequence[Any], cotangent: np.ndarray
    ) -> list[Any]:
        """Differentiate Σ cotangent · function(*arrays) with respect to each array."""
        return list(self.differentiate(function, arrays, cotangent).gradients)

    def differentiate(
        self, function: Function, arrays: Sequence[Any], cotangent: np.ndarray, way: str = "plain"
    ) -> Differentiated:
        """As `gradient`, with what the function returned; how arrays lie is JAX's own affair."""
        result, pull_back = self.jax.vjp(function, *arrays)
        return Differentiated(pull_back(self.jax.numpy.asarray(cotangent, dtype=result.dtype)), result)


def _twice(pull_back: Callable[..., Any]) -> Any:
    """What a second backward pass gives, or the only one where the library or its code refuses two."""
    try:
        first = pull_back(retain_graph=True)
    except RuntimeError:
        return pull_back()
    try:
        return pull_back()
    except RuntimeError:
        return first


LIBRARIES: dict[str, Callable[[], Any]] = {"numpy": NumpyArrays, "torch": TorchArrays, "jax": JaxArrays}


def dtype_name(x: Any, as_numpy: np.ndarray) -> str:
    """Name a result's dtype as the protocol does: "float32", whether it prints so or as "torch.float32"."""
    dtype = getattr(x, "dtype", as_numpy.dtype)
    return str(getattr(dtype, "name", dtype)).rsplit(".", maxsplit=1)[-1]


def device_name(x: Any) -> str:
    """Name the kind of device a result lives on; the cpu where the library has no such notion."""
    return str(getattr(getattr(x, "device", None), "type", None) or "")


def _kind(x: Any) -> str:
    if x is None:
        return "None (is a return missing?)"
    library = type(x).__module__
    return f"a {'Python' if library == 'builtins' else library} {type(x).__qualname__}"
