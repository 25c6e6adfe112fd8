"""Whether f has kinks, from its value and gradient alone: bisection of the intervals in which they bend most.

Along a line, over an interval of length h, the gradient of a smooth f changes by O(h): halve h twenty times, and it is a
millionth. Across a kink (or a jump of f itself) the change stays. derivations/11-hessian-vector-products.md, eq. 11.14.
"""
from __future__ import annotations

import numpy as np

LINES, NODES, SUSPECTS, HALVINGS = 3, 64, 6, 30
JUMP = 1e-5               # of the largest gradient on the line: what stays of a change after all halvings, and is no rounding


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
            return (f"theta + {t:.4g} v, |v_i| about {length:.2g}: {'f itself' if of_value else 'its gradient'} "
                    f"jumps by {jump:.1e} of its size within {2 / NODES / 2.0**HALVINGS:.0e} v")
    return None


def _on_line(look):
    """(t, jump, whether of f itself) of the largest jump on one line, or None."""
    t = np.linspace(-1, 1, NODES + 1)
    seen = np.array([look(at) for at in t])                                  # (NODES + 1, p + 1): gradient, f
    scale = np.full(seen.shape[1], np.linalg.norm(seen[:, :-1], axis=1).max() or 1.0)
    scale[-1] = np.abs(seen[:, -1]).max() or 1.0
    seen /= scale
    change = np.linalg.norm(np.diff(seen, axis=0), axis=1)                   # (NODES,)
    bend = np.linalg.norm(np.diff(seen, n=2, axis=0), axis=1)                # (NODES - 1,)
    suspicion = np.fmax(np.append(bend, 0), np.append(0, bend)) * (change > JUMP)
    for j in np.argsort(suspicion)[::-1][:SUSPECTS]:
        if suspicion[j] <= JUMP:
            break
        low, high, left, right = t[j], t[j + 1], seen[j], seen[j + 1]
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            between = look(middle) / scale
            if np.linalg.norm(between - left) > np.linalg.norm(right - between):
                high, right = middle, between
            else:
                low, left = middle, between
            if np.linalg.norm(right - left) <= JUMP:
                break
        else:
            jump = np.abs(right - left)
            return low, float(np.linalg.norm(right - left)), bool(jump[-1] > JUMP)
    return None
