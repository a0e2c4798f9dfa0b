"""Which of PyTorch's kernels run, and which of them somebody has to wait for."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.default", "unique")
"""Kernels whose result the host has to wait for, or whose shape depends on values."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of the kernels that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.kernels.append(str(func))
        return func(*args, **(kwargs or {}))

    @property
    def waiting(self) -> list[str]:
        """Those that somebody has to wait for."""
        return [kernel for kernel in self.kernels if any(name in kernel for name in WAITING)]
