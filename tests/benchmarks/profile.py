"""Which of PyTorch's operators a call spends its time in."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

CALLS, MOST = 5, 6
"""How often a call is made, and how many operators are named."""


def operators(function: Callable[[], object], device: str = "cpu") -> list[tuple[str, float, float]]:
    """The operators that take longest: name, share of the time of all, how often one call takes them."""
    on_device = device != "cpu"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    with profile(activities=activities) as profiler:
        for _ in range(CALLS):
            function()
    found = [
        (one.key, one.self_device_time_total if on_device else one.self_cpu_time_total, one.count)
        for one in profiler.key_averages()
    ]
    whole = sum(time for _, time, _ in found) or 1.0
    longest = sorted(found, key=lambda one: -one[1])[:MOST]
    return [(name.removeprefix("aten::"), time / whole, count / CALLS) for name, time, count in longest]
