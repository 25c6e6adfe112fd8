"""What float32 and float64 can show of a derivative."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Precision:
    """What a dtype can show.

    complex_step, difference : relative error of an entry that still counts as right
    resolution : relative error up to which a measured derivative, or the rounding in it, can judge an entry
    spacings : relative distances of the points at which noise is measured
    """

    eps: float
    complex_step: float
    difference: float
    resolution: float
    spacings: tuple


# complex_step of float32: of claims in float32 beside complex steps in float64.
PRECISIONS = {
    np.dtype(np.float64): Precision(2.0**-52, 1e-12, 1e-8, 6e-7, (2.0**-40, 2.0**-30, 2.0**-20)),
    np.dtype(np.float32): Precision(2.0**-23, 1e-5, 1e-4, 8e-3, (2.0**-20,)),
}
