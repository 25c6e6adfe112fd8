"""The Hessian as a linear operator: H @ v, its dense matrix, its diagonal; never formed unless asked for.

Rows and columns of parameters that cannot reach the prediction (`model.reaches_prediction()`) are exactly
zero; `to_dense` and `diagonal` spend no products on them. derivations/11-hessian-vector-products.md.
"""

import threading

import numpy as np
from scipy.sparse.linalg import LinearOperator

from lintransformer.diagnostics.products import (chosen_method, finite_point, hessian_vector_product,
                                                 make_product)
from lintransformer.objective import reaching

__all__ = ["HessianOperator", "hessian", "hessian_vector_product"]


def hessian(model, theta, batch, method=None):
    """The Hessian of f at theta on a batch, a `scipy.sparse.linalg.LinearOperator` (p, p) in float64.

    Parameters
    ----------
    model : an objective, anything with `size` and `value_and_gradient(theta, batch)`
    theta : array (p,); float32 is computed with in float64
    batch : what the model reads
    method : how products are computed: None, or one of `lintransformer.diagnostics.products.METHODS`. None takes
        "exact" for models with kinks or where differences are not right to about 1e-7, else "difference"

    Raises
    ------
    InputError : theta or the batch does not fit the model or holds non-finite entries (a diverged point); no
        Hessian exists in floating point there.

    Warns
    -----
    UserWarning : "difference", asked for by name, for a model with kinks.

    Examples
    --------
    >>> import numpy as np, lintransformer as lt
    >>> from lintransformer.diagnostics.hessian import hessian
    >>> model = lt.build_model(layers=2, dimension=3)
    >>> batch = lt.PromptDistribution(dimension=3, context_length=8).draw_gram(np.random.default_rng(0), 100)
    >>> H = hessian(model, model.init(np.random.default_rng(1)), batch)
    >>> bool(np.allclose(H @ np.eye(36)[0], H.to_dense()[0]))
    True
    """
    theta, batch = finite_point(model, theta, batch)
    return HessianOperator(model, theta, batch, chosen_method(model, method))


class HessianOperator(LinearOperator):
    """H (p, p), symmetric, at a point that `finite_point` has passed; made by `hessian`.

    `method` is the one in use, `products` counts the Hessian-vector products spent so far. Threads may share it,
    and it can be sent to another process: its step is found anew there, and is the same.
    """

    def __init__(self, model, theta, batch, method=None):
        self.model, self.theta, self.batch = model, theta, batch
        self._product = make_product(model, theta, batch, method)
        self.method, self.products, self._counting = self._product.method, 0, threading.Lock()
        super().__init__(np.float64, (model.size, model.size))

    def __reduce__(self):
        return HessianOperator, (self.model, self.theta, self.batch, self.method)

    def _count(self, products):
        with self._counting:                                                 # += is not one operation
            self.products += products

    def _matvec(self, v):
        self._count(1)
        return self._product(np.reshape(v, -1))

    def _matmat(self, V):
        self._count(V.shape[1])
        return self._product(np.ascontiguousarray(V.T)).T

    def _adjoint(self):
        return self

    def _transpose(self):
        return self

    def to_dense(self):
        """H as an array (p, p), exactly symmetric.

        Of an objective with `suffixes(theta, batch)`, columns of a layer's parameters are computed in the model that
        starts at that layer, rows of earlier layers follow by symmetry; derivations/20-dense-hessians.md, eq. 20.2.
        """
        dense, reaches = np.zeros(self.shape), reaching(self.model)
        suffixes = getattr(self.model, "suffixes", lambda theta, batch: [(self.model, slice(None), batch)])
        found = list(suffixes(self.theta, self.batch))
        parts = [np.arange(len(self.theta))[part] for _, part, _ in found]
        for k, (model, part, batch) in enumerate(found):
            product = self._product if k == 0 else make_product(model, self.theta[part], batch, self.method,
                                                                step=self._product.step)
            rows, later = parts[k], parts[k + 1] if k + 1 < len(parts) else parts[k][:0]
            columns = np.setdiff1d(rows[reaches[rows]], later)
            self._count(len(columns))
            Hv = product((rows == columns[:, None]).astype(float)) * reaches[rows]
            dense[np.ix_(columns, rows)] = Hv
            dense[np.ix_(later, columns)] = Hv[:, np.isin(rows, later)].T
            own = np.ix_(columns, columns)
            dense[own] = (dense[own] + dense[own].T) / 2
        return dense

    def diagonal(self):
        """diag H (p,); as many products as `to_dense`, but memory for one column at a time."""
        diagonal = np.zeros(self.shape[0])
        for i in np.flatnonzero(reaching(self.model)):
            diagonal[i] = self.matvec(np.eye(1, len(diagonal), i)[0])[i]
        return diagonal
