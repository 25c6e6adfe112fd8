"""Whether f has kinks, from its value and gradient alone: what stays of a change as the interval gets shorter.

Between two points h apart the gradient of a smooth f changes by O(h), and by hardly more than between their neighbours.
Across a kink, and across a jump of f itself, the change stays, however short h is: it is looked for where fourth
differences are largest, and followed down. derivations/17-checks.md, eq. 17.3.
"""
from __future__ import annotations

import numpy as np

LINES, NODES, SUSPECTS = 3, 128, 6
FINER, LEVELS = 8, 9      # each level splits one interval into so many: h = 2 / 128 / 4 / 8^9 = 3e-11 in the end
JUMP = 1e-5               # of the largest gradient on the line (or value): what is no rounding, and does not go away


def find_kink(value_and_gradient, theta, rng):
    """A line of words that says where a kink or a jump is, or None where none was met.

    Parameters
    ----------
    value_and_gradient : callable theta (p,) -> (f, gradient (p,))
    theta : (p,); lines run through it, as long as its entries are large
    """
    length = np.sqrt(np.mean(theta**2)) or 1.0
    for _ in range(LINES):
        v = length * rng.uniform(0.5, 1.5, theta.size) * rng.choice([-1.0, 1.0], theta.size)

        def look(t, v=v):
            f, g = value_and_gradient(theta + t * v)
            return np.append(g, f).astype(np.float64)

        found = _on_line(look)
        if found is not None:
            t, jump, of_value = found
            return (f"theta + {t:.4g} v, |v_i| about {length:.2g}, {'f itself' if of_value else 'its gradient'} "
                    f"jumps by {jump:.1e} of its size within {2 / NODES / 4 / FINER**LEVELS:.0e} v")
    return None


def _on_line(look):
    """(t, jump, whether of f itself) of a jump on one line, or None."""
    t = np.linspace(-1, 1, NODES + 1)
    seen = np.array([look(at) for at in t])                                  # (NODES + 1, p + 1): gradient, f
    scale = np.full(seen.shape[1], np.linalg.norm(seen[:, :-1], axis=1).max() or 1.0)
    scale[-1] = np.abs(seen[:, -1]).max() or 1.0
    suspicion = np.linalg.norm(np.diff(seen / scale, n=4, axis=0), axis=1)   # (NODES - 3,), each of four intervals
    for _ in range(SUSPECTS):
        j = int(np.argmax(suspicion))
        if suspicion[j] <= JUMP:
            return None
        found = _follow(lambda at: look(at) / scale, t[j], t[j + 4])
        if found is not None:
            return found
        suspicion[max(0, j - 3):j + 4] = 0
    return None


def _follow(look, low, high):
    """Down to ever shorter intervals, while one of them changes unlike the others."""
    parts = 4 * 4
    for _ in range(LEVELS + 1):
        t = np.linspace(low, high, parts + 1)
        change = np.diff([look(at) for at in t], axis=0)                     # (parts, p + 1)
        apart = change - np.median(change, axis=0)
        j = int(np.argmax(np.linalg.norm(apart, axis=1)))
        jump = np.linalg.norm(apart[j])
        if jump <= JUMP:
            return None
        low, high, parts = t[j], t[j + 1], FINER
    return low, float(jump), bool(np.abs(apart[j, -1]) > JUMP)
