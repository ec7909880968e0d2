"""Speeds as ratios measured in one run.
A module here has `rows()`, which yields a `Row` for each comparison."""

import gc
import statistics
import time
from dataclasses import dataclass


@dataclass
class Row:
    what: str  # what is compared, in words
    ours: float  # seconds, or another unit named in `what`
    theirs: float
    ratio: float  # larger is better for medbook
    target: str  # as the project states it, such as ">= 0.9"

    @property
    def met(self):
        sign, bound = self.target.split()
        return self.ratio >= float(bound) if sign == ">=" else self.ratio <= float(bound)


def seconds(ours, theirs, *, repeats=7):
    """Median seconds of two callables, called in turn, so that a busy machine slows both alike."""
    times = ([], [])
    ours(), theirs()
    for _ in range(repeats):
        for call, kept in zip((ours, theirs), times, strict=True):
            gc.collect()
            start = time.perf_counter()
            call()
            kept.append(time.perf_counter() - start)
    return tuple(statistics.median(kept) for kept in times)


def faster(what, ours, theirs, target, *, repeats=7):
    """A row that tells how many times faster `ours` is than `theirs`."""
    mine, other = seconds(ours, theirs, repeats=repeats)
    return Row(what, mine, other, other / mine, target)
