"""Bytes that torch's allocator gives out on the CPU: exact, whatever the heap below it keeps."""

import itertools

import torch


def allocated_at_most(work) -> int:
    """Bytes at the peak of some work, beyond those at its beginning."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda each: each.start_ns())))
