"""How much memory a call takes at its peak, beyond what was taken before it."""

from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile


def peak(function: Callable[[], object], device: str = "cpu") -> int:
    """Bytes that PyTorch's allocator holds for a call at its peak, the result among them."""
    if device != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function()
    found = profiler.profiler.kineto_results.events()
    events = sorted((event.start_ns(), event.nbytes()) for event in found if event.name() == "[memory]")
    del result
    return max(accumulate(size for _, size in events), default=0)
