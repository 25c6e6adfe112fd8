"""`build_model`: every model of the paper from one call; combinations that make no sense are refused by name."""
from __future__ import annotations

from lintransformer.checks import InputError, check_choice, check_finite_positive, check_positive_integer
from lintransformer.layers.attention import Linear, ReLU, Softmax
from lintransformer.layers.attention_tangents import TangentAttention
from lintransformer.layers.embedding import MLPEmbedding
from lintransformer.layers.gram import GramAttention
from lintransformer.layers.parametrization import PARTS, Parametrization, Parametrized
from lintransformer.models.transformer import Transformer

# name -> activation, given whether the mask comes before it; a reader's own is given as an object.
ATTENTIONS = {"linear": lambda before: Linear(), "softmax": Softmax, "relu": lambda before: ReLU()}
FORMS = ("gram", "token")
MASKS = ("after", "before")


def build_model(layers=3, dimension=5, attention="linear", parametrization="block", heads=1, embedding=None,
                form=None, mask="after", init_scale=0.05) -> Transformer:
    """Return a `Transformer`.

    Parameters
    ----------
    layers : int, L
    dimension : int, d, the length of a covariate
    attention : "linear", "softmax" or "relu", or an activation object of your own with the `value`, `pull` and
        `pull_tangent` of `lintransformer/layers/attention.py`: what stands around Z^T Q Z
    parametrization : "block" (authors' code), "full" (eq. 7) or "separate" query and key matrices (Fig. 8)
    heads : int, H; the heads of a layer are summed
    embedding : None, or the hidden width of a ReLU MLP on the covariates (Appendix B: 15, authors' code 30)
    form : "gram" (O(d^3), the default for linear attention) or "token" (O(n^2 d), the literal eq. 7-8 and the only
        one for everything else)
    mask : "after" (authors' code: the activation over all n + 1 keys, then M) or "before" (the query is no key)
    init_scale : float, standard deviation of the attention part of theta at initialisation

    Raises
    ------
    InputError : an unknown option, or a combination that does not exist.
    """
    check_choice("mask", mask, MASKS)
    activation, name = _activation(attention, mask)
    form = check_choice("form", ("gram" if name == "linear" else "token") if form is None else form, FORMS)
    if form != "token" and name != "linear":
        raise InputError(f"form {form!r} is for linear attention only; {name} attention allows: token")
    check_positive_integer("layers", layers)
    heads, dimension = check_positive_integer("heads", heads), check_positive_integer("dimension", dimension)
    shape = Parametrization(check_choice("parametrization", parametrization, PARTS), heads, dimension)
    if embedding is not None:
        embedding = MLPEmbedding(check_positive_integer("embedding", embedding), dimension)
    init_scale = check_finite_positive("init_scale", init_scale, zero_allowed=True)
    layer = GramAttention(dimension, heads) if form == "gram" else TangentAttention(dimension, heads, activation)
    return Transformer([Parametrized(shape, layer, init_scale)] * layers, embedding, form, name, mask)


def _activation(attention, mask):
    """The activation object, and its name."""
    if not isinstance(attention, str) and attention is not None:
        missing = [name for name in ("value", "pull", "pull_tangent") if not hasattr(attention, name)]
        if missing:
            raise InputError(f"attention must be one of {', '.join(ATTENTIONS)}, or have value, pull and pull_tangent; "
                             f"{attention!r} has no {missing[0]}")
        if mask == "before":
            raise InputError("mask 'before' is for attention by name: an activation of your own masks by itself")
        return attention, f"{type(attention).__name__}()"               # no name that an attention of ours has
    return ATTENTIONS[check_choice("attention", attention, ATTENTIONS)](mask == "before"), attention
