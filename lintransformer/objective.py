"""The objective f(theta) = mean over the batch of (TF_L(Z_0; theta) - <w*, x^(n+1)>)^2 (Section 3.1; no factor 1/2).

Its gradient and its Hessian-vector product are exact, by the model's hand-derived passes:
    r = prediction - target            f = sum r^2 / B
    grad f = J^T (2 r / B)             H v = J^T (2 J v / B) + (d/dv J)^T (2 r / B)
derivations/11-hessian-vector-products.md, eq. 11.1-11.2. theta's and the batch's dtypes promote as NumPy does; float32,
float64, complex128 and object arrays of Fractions all run through it.
"""

from lintransformer.checks import check_abilities


def predict(model, theta, batch):
    """The predictions TF_L (B,)."""
    return check_abilities("model", model, ("size", "forward"), "lt.build_model()").forward(theta, batch)[0]


def prompt_losses(model, theta, batch):
    """The squared error of every prompt (B,)."""
    residual = predict(model, theta, batch) - batch.target
    return residual * residual


def value(model, theta, batch):
    """f(theta), a scalar."""
    return prompt_losses(model, theta, batch).sum() / batch.size


def value_and_gradient(model, theta, batch):
    """f(theta) and its gradient (p,).

    Parameters
    ----------
    model : `lintransformer.models.transformer.Transformer`
    theta : array (p,)
    batch : `Prompts` or `GramPrompts`

    Raises
    ------
    InputError : theta or the batch does not fit the model.
    """
    check_abilities("model", model, ("size", "forward", "backward"), "lt.build_model()")
    prediction, cache = model.forward(theta, batch)
    residual = prediction - batch.target
    return (residual * residual).sum() / batch.size, model.backward(cache, 2 * residual / batch.size)


def gradient(model, theta, batch):
    """The gradient of f at theta (p,)."""
    return value_and_gradient(model, theta, batch)[1]


def exact_hessian_vector_product(model, theta, batch, v):
    """H v by hand-derived tangents of the forward and the backward pass; v (p,) or (K, p), and so is H v."""
    prediction, cache = model.forward(theta, batch)
    residual = prediction - batch.target
    tprediction, tcache = model.forward_tangent(cache, v)
    return model.backward_tangent(cache, tcache, 2 * residual / batch.size, 2 * tprediction / batch.size)
