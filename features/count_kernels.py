"""Compiled kernels that count what a snapshot's files hold."""

from __future__ import annotations

from features.jit import entry


@entry("void(Array(int32, 1, 'C', readonly=True), Array(float32, 1, 'C', readonly=True), int64[:, ::1])")
def count_slots(slots, label, counts):  # type: ignore[no-untyped-def]
    """counts[label, slot] += 1 for every row: ``counts`` [2, size]; slots must lie in [0, size)."""
    for i in range(len(slots)):
        counts[1 if label[i] > 0 else 0, slots[i]] += 1
