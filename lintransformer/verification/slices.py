"""A theta of any length, as the few numbers along which its derivatives are checked one by one.

Up to EVERY_ENTRY entries: theta itself. Beyond: some entries of every weight, and random directions that move all the
others, so that a mistake anywhere shows in a sum, and most of them under their own name.
"""
from __future__ import annotations

import math

import numpy as np

EVERY_ENTRY, ENTRIES, DIRECTIONS = 60, 40, 4


class Slice:
    """theta = start along chosen entries e_i and directions d_k: functions of theta become functions of a dict.

    Parameters
    ----------
    theta : (p,)
    shapes : shapes of the weights of which theta is made, one after another
    rng : which entries and directions

    Attributes
    ----------
    start : theta itself, or {"theta[17]": number, ..., "direction 0": 1.0, ...}
    """

    def __init__(self, theta, shapes, rng):
        self.base, self.entries = theta, None
        self.start = theta
        if theta.size <= EVERY_ENTRY:
            return
        self.entries = np.sort(_of_each(theta.size, shapes, rng))
        typical = np.sqrt(np.mean(theta**2))
        self.directions = typical * rng.uniform(0.5, 1.5, (DIRECTIONS, theta.size))
        self.directions *= rng.choice([-1.0, 1.0], self.directions.shape)
        self.directions[:, self.entries] = 0
        names = [f"theta[{i}]" for i in self.entries] + [f"direction {k}" for k in range(DIRECTIONS)]
        self.start = dict(zip(names, np.append(theta[self.entries], np.ones(DIRECTIONS))))

    def theta(self, at):
        """(p,), of the numbers `at`."""
        if self.entries is None:
            return at
        numbers = np.stack(list(at.values()))
        theta = self.base + (numbers[len(self.entries):] - 1) @ self.directions
        theta[self.entries] = numbers[:len(self.entries)]
        return theta

    def spread(self, v):
        """A direction (p,), of the direction `v`: linear in v."""
        if self.entries is None:
            return v
        numbers = np.stack(list(v.values()))
        direction = numbers[len(self.entries):] @ self.directions
        direction[self.entries] = numbers[:len(self.entries)]
        return direction

    def gather(self, g):
        """The adjoint of `spread`: a gradient (p,) as one like `start`; (1.6)."""
        if self.entries is None:
            return g
        return dict(zip(self.start, np.append(g[self.entries], self.directions @ g)))

    def of(self, f):
        return lambda at: f(self.theta(at))

    def gradient_of(self, gradient):
        return lambda at: self.gather(gradient(self.theta(at)))

    def product_of(self, product):
        return lambda at, v: self.gather(product(self.theta(at), self.spread(v)))


def _of_each(size, shapes, rng):
    """ENTRIES entries, as evenly as it goes from every weight; at least one of each while there are so many."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    if not len(ends) or ends[-1] != size:
        ends = np.array([size])
    blocks = [block for block in np.split(np.arange(size), ends[:-1]) if len(block)]
    each = max(1, ENTRIES // len(blocks))
    chosen = np.concatenate([rng.choice(block, min(each, len(block)), replace=False) for block in blocks])
    return chosen if len(chosen) <= ENTRIES else rng.choice(chosen, ENTRIES, replace=False)
