"""Robust condition numbers, in every meaning that is about; derivations/13-condition-numbers.md.

Conventions
-----------
diagonal (..., p) is diag H and eigenvalues (..., p) are those of H, any leading axes
(steps, seeds). A parameter that cannot reach the prediction has a zero row and column in H: it puts one exact
zero on the diagonal and one among the eigenvalues, which moves the median. Hence every number over all p
parameters and over those that reach.

    name                        numerator     denominator        over
    diagonal                    max |H_ii|    median |H_ii|      all p      authors' code, and our figures
    diagonal-reaching           max |H_ii|    median |H_ii|      reaching
    eigenvalues                 lambda_max    lambda_median      all p      as printed in Section 2.3
    eigenvalues-reaching        lambda_max    lambda_median      reaching
    magnitudes                  max |lambda|  median |lambda|    all p      eq. 13.1
    magnitudes-reaching         max |lambda|  median |lambda|    reaching

A ratio with a median of zero is infinite, that of a Hessian which is zero altogether included (as for
`numpy.linalg.cond`); lambda_max / lambda_median is negative where more than half of the eigenvalues are. Both are
returned as they are: they say that the number means little there.
"""

import numpy as np

from lintransformer.checks import InputError, check_choice, real_array, shown
from lintransformer.objective import reaching

# name -> (what it is made of, whether of magnitudes, whether only of what reaches the prediction)
MEANINGS = {
    "diagonal": ("diagonal", True, False), "diagonal-reaching": ("diagonal", True, True),
    "eigenvalues": ("eigenvalues", False, False), "eigenvalues-reaching": ("eigenvalues", False, True),
    "magnitudes": ("eigenvalues", True, False), "magnitudes-reaching": ("eigenvalues", True, True),
}


def robust_condition_number(diagonal, eigenvalues, reaches, meaning="diagonal"):
    """One robust condition number for each leading index of the arrays.

    Parameters
    ----------
    diagonal, eigenvalues : arrays (..., p), of the Hessian over all parameters; the one that the meaning does
        not need may be None
    reaches : array (p,) of bool, `model.reaches_prediction()`
    meaning : one of `MEANINGS`

    Returns
    -------
    array (...), inf where the median is 0, NaN where an entry is NaN (a point that has no Hessian)

    Raises
    ------
    InputError : an unknown meaning, complex or masked numbers, shapes that do not fit, nothing that reaches.
    """
    source, magnitudes, only_reaching = MEANINGS[check_choice("meaning", meaning, MEANINGS)]
    values = real_array(source, diagonal if source == "diagonal" else eigenvalues)
    reaches = np.asarray(reaches)
    if reaches.ndim != 1 or reaches.dtype != bool or not reaches.any():
        raise InputError(f"reaches must be a vector (p,) of bool, one of them true, not {shown(reaches)}")
    if values.shape[-1:] != reaches.shape:
        raise InputError(f"{source} must have shape (..., {reaches.size}) like reaches, not {values.shape}")
    if only_reaching:
        values = values[..., reaches] if source == "diagonal" else _without_zeros(values, np.sum(~reaches))
    values = np.abs(values) if magnitudes else values
    with np.errstate(divide="ignore", invalid="ignore"):
        largest, median = np.max(values, axis=-1), np.median(values, axis=-1)
        return np.where((largest == 0) & (median == 0), np.inf, largest / median)[()]


def condition_numbers(model, theta, batch, method=None):
    """Every meaning at one point: {name: float}, for the Hessian of f on a batch; `method` as in `hessian`."""
    from lintransformer.diagnostics.hessian import HessianOperator           # SciPy loads where it is used
    from lintransformer.diagnostics.products import chosen_method, finite_point
    from lintransformer.diagnostics.spectrum import dense_spectrum
    dense = HessianOperator(model, *finite_point(model, theta, batch), chosen_method(model, method)).to_dense()
    diagonal, eigenvalues, reaches = np.diag(dense), dense_spectrum(dense), reaching(model)
    return {meaning: float(robust_condition_number(diagonal, eigenvalues, reaches, meaning))
            for meaning in MEANINGS}


def _without_zeros(eigenvalues, count):
    """Drop the `count` eigenvalues of least magnitude: those of the zero rows, in whatever place sorting put
    them.

    They are zero to rounding, so which of several tiny ones is dropped changes nothing but rounding.
    """
    if count == 0:
        return eigenvalues
    order = np.argsort(np.abs(eigenvalues), axis=-1, kind="stable")
    return np.take_along_axis(eigenvalues, order[..., count:], axis=-1)
