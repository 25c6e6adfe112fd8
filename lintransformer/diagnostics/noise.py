"""Gradient noise: how far the gradient of one batch is from that of a large one;
derivations/15-gradient-noise.md.

Conventions
-----------
An error norm is ||g_B - g||: g_B the gradient on B fresh prompts, g that on
`reference` x B prompts ("authors' code": B = 1000, reference = 100, 10,000 draws at initialisation). norms
(N,) are such draws, all at one theta.

A norm of Gaussian errors is itself not Gaussian but skewed (eq. 15.3): the fitted Gaussian of Fig. 3 is a
ruler, not a null hypothesis. The null is `gaussian_norms`: errors as large as the measured ones, direction by
direction, but Gaussian. Nor is there one tail index: Hill's estimate is given over k, the number of largest
draws it uses.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from lintransformer.checks import (InputError, check_abilities, check_callable, check_dtype, check_level,
                                   check_positive_integer, check_type, finite, real_array, shown)
from lintransformer.distributions import PromptDistribution
from lintransformer.random import stream
from lintransformer.workspace import Workspace

BLOCK = 200            # errors kept at a time


class Noise(NamedTuple):
    """norms (draws,) of e = g_B - g; gradient (p,), the large-batch g; spectrum (p,) of E e e^T."""

    norms: np.ndarray
    gradient: np.ndarray
    spectrum: np.ndarray


def gradient_noise(model, theta, distribution, draws=10_000, batch_size=1000, reference=100, seed=1,
                   dtype="float32", progress=None):
    """Error norms of batch gradients against a large-batch gradient, at any theta.

    Parameters
    ----------
    model : `Transformer`
    theta : array (p,): the initialisation, or any recorded point
    distribution : `PromptDistribution`
    draws : int, batches drawn; 10,000 in the authors' code
    batch_size : int, B
    reference : int, batches in the large one (accumulated one by one, in float64)
    seed : int; errors and reference come from streams of their own
    dtype : of each batch gradient
    progress : None, or called with the share done

    Raises
    ------
    InputError : theta or a gradient is not finite (a diverged point), or so large that squares of errors overflow;
        a value out of range; theta is complex.
    """
    check_abilities("model", model, ("size", "check_theta", "forward", "backward"), "lt.build_model()")
    check_type("distribution", distribution, PromptDistribution)
    theta = finite("theta", real_array("theta", model.check_theta(theta)), " (a diverged point)")
    dtype = check_dtype(dtype)
    with np.errstate(over="ignore"):
        theta = finite(f"theta in {dtype}", theta.astype(dtype))
    check_positive_integer("draws", draws)
    check_positive_integer("reference", reference)
    check_callable("progress", progress)
    workspace = Workspace(model, batch_size, dtype)
    sampler = distribution.sampler(batch_size, dtype, "tokens" if model.needs_tokens else "gram")
    total = reference + draws

    def gradients(count, purpose, before):
        rng = stream(seed, purpose)
        for i in range(count):
            if progress is not None and i % 50 == 0:
                progress((before + i) / total)
            yield workspace.value_and_gradient(theta, sampler.draw(rng))[1]

    mean, second = np.zeros(model.size), np.zeros((model.size, model.size))
    for g in gradients(reference, "noise reference", 0):
        mean += finite("the gradient", g, " (f overflows at theta)").astype(np.float64) / reference
    norms, errors = [], []
    for g in gradients(draws, "noise", reference):
        errors.append(finite("the gradient", g, " (f overflows at theta)") - mean)
        if len(errors) == BLOCK or len(norms) + len(errors) == draws:
            block = np.array(errors)
            with np.errstate(over="ignore", invalid="ignore"):
                second += finite("the covariance of the noise", block.T @ block / draws, " (it overflows float64)")
            norms.extend(np.linalg.norm(block, axis=1))
            errors.clear()
    return Noise(np.array(norms), mean, np.clip(np.linalg.eigvalsh(second), 0, None))


def gaussian_norms(spectrum, draws=10_000, seed=1):
    """Norms (draws,) of Gaussian errors whose covariance has the eigenvalues `spectrum` (p,): eq. 15.2."""
    (spectrum, exponent), rng, parts = _scaled(_spectrum(spectrum)), stream(seed, "probe"), []
    if exponent % 2:
        spectrum, exponent = 2 * spectrum, exponent - 1                      # a root of the power of two
    for start in range(0, check_positive_integer("draws", draws), BLOCK):
        normal = rng.standard_normal((min(BLOCK, draws - start), len(spectrum)))
        parts.append(np.ldexp(np.sqrt(normal**2 @ spectrum), exponent // 2))
    return np.concatenate(parts)


def effective_dimensions(spectrum):
    """k_eff = (sum lambda)^2 / sum lambda^2 (eq. 15.2): how many directions carry the noise; at any scale.

    Raises
    ------
    InputError : a spectrum (p,) that is not real, finite and at least 0, or is 0 altogether: nothing carries it.
    """
    spectrum, _ = _scaled(_spectrum(spectrum))
    if not spectrum.any():
        raise InputError("spectrum must have an entry greater than 0: no direction carries any noise")
    return float(spectrum.sum() ** 2 / (spectrum**2).sum())


def _spectrum(values):
    values = finite("spectrum", real_array("spectrum", values))
    if values.ndim != 1 or not len(values) or values.min() < 0:
        raise InputError("spectrum must be a vector (p,) of numbers of at least 0, "
                         + (f"not of shape {values.shape}" if values.ndim != 1 or not len(values)
                            else f"but its smallest is {values.min():g}"))
    return values


def _scaled(values):
    """The values in units of a power of two near the largest, and its exponent: exact, and no square overflows."""
    exponent = int(np.frexp(np.abs(values).max())[1])
    return np.ldexp(values, -exponent), exponent


# Shape statistics of a sample; each is 0, or 1, for a Gaussian. Ratios are of quantile distances, in units of
# what a Gaussian has: upper_tail 2 means that the 99 % quantile lies twice as far above the median, against
# the 75 % one, as a Gaussian's does.
def _quantile_ratio(inner, outer):
    gaussian = NormalDist().inv_cdf(outer) / NormalDist().inv_cdf(inner)

    def ratio(norms):
        low, middle, high = np.quantile(norms, [inner, 0.5, outer], axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (high - middle) / (low - middle) / gaussian

    return ratio


def _standardised_moment(norms, power):
    centred = norms - np.mean(norms, axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.mean(centred**power, axis=-1) / np.mean(centred**2, axis=-1) ** (power / 2)


STATISTICS = {
    "mean": lambda norms: np.mean(norms, axis=-1),
    "std": lambda norms: np.std(norms, axis=-1, ddof=1),
    "skewness": lambda norms: _standardised_moment(norms, 3),
    "excess_kurtosis": lambda norms: _standardised_moment(norms, 4) - 3,
    "upper_tail": _quantile_ratio(0.75, 0.99),
    "far_upper_tail": _quantile_ratio(0.75, 0.999),
    "lower_tail": _quantile_ratio(0.25, 0.01),
}


def noise_statistics(norms, resamples=200, level=0.95, seed=0):
    """Shape statistics with percentile bootstrap intervals over the draws: {name: (value, low, high)}.

    The bootstrap cannot see beyond the largest draw: where tails are heavy, intervals of the skewness and the
    kurtosis are too short. The quantile ratios are what to compare there.

    Parameters
    ----------
    norms : array (N,), N at least 4
    resamples : int, bootstrap samples
    level : float strictly between 0 and 1, of the intervals
    seed : int, of the bootstrap
    """
    norms, exponent = _scaled(_sample(norms, 4))
    check_level("level", level)
    rng = stream(seed, "probe")
    check_positive_integer("resamples", resamples)
    drawn = norms[rng.integers(0, len(norms), (resamples, len(norms)))]
    tails = [(1 - level) / 2, (1 + level) / 2]
    report = {}
    for name, statistic in STATISTICS.items():
        numbers = np.array([statistic(norms), *np.quantile(statistic(drawn), tails)])
        if name in ("mean", "std"):                                          # the rest has no units
            numbers = np.ldexp(numbers, exponent)
        report[name] = tuple(map(float, numbers))
    return report


class QuantilePlot(NamedTuple):
    """theoretical and ordered (N,): quantiles of the fitted Gaussian, and the sorted norms."""

    theoretical: np.ndarray
    ordered: np.ndarray


def quantile_plot(norms):
    """Q-Q plot against the Gaussian of equal mean and variance (Fig. 3's inset), by SciPy's `probplot`."""
    from scipy import stats
    norms, exponent = _scaled(_sample(norms, 2))
    theoretical, ordered = stats.probplot(norms, sparams=(np.mean(norms), np.std(norms, ddof=1)), fit=False)
    return QuantilePlot(np.ldexp(theoretical, exponent), np.ldexp(ordered, exponent))


class Hill(NamedTuple):
    """k (m,), index (m,), low (m,), high (m,): Hill's tail index for the k largest draws, and its 95 %
    interval.

    The interval is index (1 -+ 1.96 / sqrt k): asymptotic, for draws that have a power-law tail.
    """

    k: np.ndarray
    index: np.ndarray
    low: np.ndarray
    high: np.ndarray


def hill(norms, k=None):
    """Hill's estimate alpha_k = k / sum_{i <= k} log(X_(i) / X_(k+1)), X_(1) the largest, over k.

    Where it settles on a plateau, tails fall like x^-alpha; where it goes on rising as k falls, they are
    lighter than any power. It is not invariant under shifts of the draws.

    Parameters
    ----------
    norms : array (N,), positive, N at least 20
    k : None (60 values from 10 to N / 10, evenly on a logarithmic scale) or integers between 1 and N - 1
    """
    norms = _sample(norms, 20)
    if norms.min() <= 0:
        raise InputError(f"norms must be positive for Hill's estimate, but the smallest is {norms.min():g}")
    top = max(11, len(norms) // 10)
    if k is None:
        k = np.unique(np.geomspace(10, top, 60).astype(int))
    else:
        given, k = real_array("k", k), np.atleast_1d(k)
        if given.ndim > 1 or not given.size or k.dtype.kind not in "iu":
            raise InputError(f"k must be integers between 1 and {len(norms) - 1}, not {shown(k)}")
    if k.min() < 1 or k.max() >= len(norms):
        raise InputError(f"k must lie between 1 and {len(norms) - 1}, not {k.min()} to {k.max()}")
    logs = np.log(np.sort(norms)[::-1])
    excess = np.cumsum(logs)[k - 1] / k - logs[k]                            # mean log excess over X_(k+1)
    with np.errstate(divide="ignore"):
        index = 1 / excess
    half = 1.96 * index / np.sqrt(k)
    return Hill(k, index, index - half, index + half)


def _sample(norms, least):
    norms = real_array("norms", norms)
    if norms.ndim != 1 or len(norms) < least:
        raise InputError(f"norms must have shape (N,) with N at least {least}, not {norms.shape}")
    return finite("norms", norms)
