"""The compiled logloss, and the sums that `training.evaluation.metrics` reads metrics off."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import math

import numpy as np

from fieldwise.features.kernels.compile import inner, kernel

BITS, BLOCK_BITS = 20, 10


@kernel
def add_rows(logits, bits, label, weight, scalars, blocks, bins):
    """A bin is the top bits of a monotone reading of float32: positives' sign bit, all bits of negatives flipped."""
    for i in range(len(logits)):
        y = np.float64(label[i])
        w = np.float64(weight[i]) if len(weight) else np.float64(1.0)
        loss, slope = logloss(np.float64(logits[i]), y)
        p = slope + y
        scalars[0] += 1.0
        scalars[1] += w
        scalars[2] += w * y
        scalars[3] += w * p
        scalars[4] += w * loss
        scalars[5] += y > 0.0
        ww = w * w
        scalars[6] += ww
        scalars[7] += ww * y
        scalars[8] += ww * loss
        scalars[9] += ww * loss * loss
        scalars[10] += ww * loss * y
        scalars[11] += ww * p * p
        scalars[12] += ww * p * y
        monotone = bits[i] ^ (np.uint32(0xFFFFFFFF) if bits[i] >> np.uint32(31) else np.uint32(0x80000000))
        at = np.int64(monotone >> np.uint32(32 - BITS))
        block = at >> BLOCK_BITS
        blocks[block, 0] += 1.0
        blocks[block, 1] += ww * (1.0 - y)
        blocks[block, 2] += ww * y
        bins[at, 0] += w * (1.0 - y)
        bins[at, 1] += w * y
        bins[at, 2] += w * p


@kernel
def gather_bins(blocks, bins, found):
    """Copy the bins with any weight; returns how many.

    Squared weights are summed by block only (half an octave of the logit): a bin has its share by weight. Where rows
    are not weighted that is exact.
    """
    used = 0
    for block in range(len(blocks)):
        if blocks[block, 0] > 0:
            first, stop = block << BLOCK_BITS, (block + 1) << BLOCK_BITS
            negative, positive = 0.0, 0.0
            for at in range(first, stop):
                negative += bins[at, 0]
                positive += bins[at, 1]
            for at in range(first, stop):
                if bins[at, 0] + bins[at, 1] > 0:
                    for column in range(3):  # a slice would take three seconds to compile
                        found[used, column] = bins[at, column]
                    found[used, 3] = bins[at, 0] * blocks[block, 1] / negative if negative > 0 else 0.0
                    found[used, 4] = bins[at, 1] * blocks[block, 2] / positive if positive > 0 else 0.0
                    used += 1
    return used


@inner
def logloss(z, y):
    """Logloss of a logit and its derivative, finite for any finite z."""
    e = math.exp(-abs(z))
    return max(z, 0.0) - z * y + math.log1p(e), (1.0 if z >= 0 else e) / (1.0 + e) - y
