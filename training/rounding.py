"""How a float32 becomes a bfloat16 of an embedding table: up or down at random, so that on average nothing is lost.

A bfloat16 keeps the upper 16 of a float32's bits. Updates of a trained weight are often less than half of what then
separates neighbours; rounded to the nearest they would all vanish. So 16 bits of noise are added to the lower half and
the sum is cut off: the upper neighbour comes with the probability of the distance to the lower one (Gupta et al. 2015,
"Deep Learning with Limited Numerical Precision"; Zamirai et al. 2020, "Revisiting BFloat16 Training").

The noise is a function of the number's place in the table and the step alone: no generator has a state, and results
depend neither on threads nor on ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEP, FIRST, SECOND = 0x9E3779B9, 0x7FEB352D, 0x846CA68B
STEPS = 1 << 24
"""So many have noise of their own; their number passes through a float32."""
_MASK = 0xFFFFFFFF


def rounded(rows: Tensor, ids: Tensor, step: int) -> Tensor:
    """bfloat16 of float32 ``rows`` [U, width] that stand at rows ``ids`` [U] of a table.

        h = (place + step * STEP) * FIRST mod 2^32,  h = (h ^ h >> 15) * SECOND mod 2^32,  noise = h >> 16

    ``place``: id * width + column; ``step`` below `STEPS`. `training.kernels.vectors.put` is the same, compiled.
    """
    place = ids[:, None] * rows.shape[1] + torch.arange(rows.shape[1], device=rows.device)
    h = (place + step * STEP) * FIRST & _MASK
    h = (h ^ h >> 15) * SECOND & _MASK
    bits = (rows.contiguous().view(torch.int32) + (h >> 16)) >> 16
    return bits.to(torch.int16).view(torch.bfloat16)
