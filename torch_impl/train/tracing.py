"""What PyTorch's allocator does in phases: on the CPU by a profile of its events, on CUDA by its counters."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function


@dataclass(frozen=True)
class Change:
    """What a phase does to memory."""

    kept: int
    """Bytes that are held at its end more than at its beginning."""
    peak: int
    """Bytes that were held at most, beyond those at its beginning."""


class Trace:
    """Follows the allocator in a `with` block, and in phases of it."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.phases: dict[str, Change] = {}
        self._profile: Any = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def __enter__(self) -> "Trace":
        gc.collect()  # so that nothing older is freed while we look
        if self.device == "cpu":
            self._profile.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.device == "cpu":
            self._profile.__exit__(*error)
            self._read()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens in this block is known by this name."""
        if self.device == "cpu":
            with record_function(name):
                yield
            self.phases[name] = Change(0, 0)
            return
        torch.cuda.synchronize(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        yield
        torch.cuda.synchronize(self.device)
        now, most = torch.cuda.memory_allocated(self.device), torch.cuda.max_memory_allocated(self.device)
        self.phases[name] = Change(now - before, most - before)

    def _read(self) -> None:
        events = self._profile.profiler.kineto_results.events()
        sizes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        spans = {e.name(): (e.start_ns(), e.end_ns()) for e in events if e.name() in self.phases}
        for name, (start, end) in spans.items():
            held = [0, *accumulate(size for when, size in sizes if start <= when <= end)]
            self.phases[name] = Change(held[-1], max(held))
