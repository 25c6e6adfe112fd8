"""`build_model`: every model of the paper from one call; combinations that make no sense are refused by name."""

from lintransformer.checks import InputError, check_choice, check_finite_positive, check_positive_integer
from lintransformer.models.activations import ACTIVATIONS
from lintransformer.models.attention import TokenAttention
from lintransformer.models.embedding import MLPEmbedding
from lintransformer.models.gram import GramAttention, Mixing
from lintransformer.models.parameters import PARTS, Parametrization
from lintransformer.models.reassociated import ReassociatedAttention
from lintransformer.models.transformer import Transformer

ATTENTIONS = ("linear", "softmax", "relu")
FORMS = ("gram", "reassociated", "token")
MASKS = ("after", "before")


def build_model(layers=3, dimension=5, attention="linear", parametrization="block", heads=1, embedding=None,
                form=None, mask="after", init_scale=0.05):
    """Return a `Transformer`.

    Parameters
    ----------
    layers : int, L
    dimension : int, d, the length of a covariate
    attention : "linear", "softmax" or "relu": what stands around Z^T Q Z
    parametrization : "block" (authors' code), "full" (eq. 7) or "separate" query and key matrices (Fig. 8)
    heads : int, H; the heads of a layer are summed
    embedding : None, or the hidden width of a ReLU MLP on the covariates (Appendix B: 15, authors' code 30)
    form : "gram" (O(d^3), the default for linear attention), "reassociated" (O(n d^2)) or "token" (O(n^2 d), the
        literal eq. 7-8 and the only one for softmax and ReLU)
    mask : "after" (authors' code: the activation over all n + 1 keys, then M) or "before" (the query is no key)
    init_scale : float, standard deviation of the attention part of theta at initialisation

    Raises
    ------
    InputError : an unknown option, or a combination that does not exist.
    """
    check_choice("attention", attention, ATTENTIONS)
    check_choice("parametrization", parametrization, PARTS)
    check_choice("mask", mask, MASKS)
    form = check_choice("form", ("gram" if attention == "linear" else "token") if form is None else form, FORMS)
    if form != "token" and attention != "linear":
        raise InputError(f"form {form!r} is for linear attention only; {attention} attention allows: token")
    shape = Parametrization(parametrization, check_positive_integer("layers", layers),
                            check_positive_integer("heads", heads), check_positive_integer("dimension", dimension))
    if embedding is not None:
        embedding = MLPEmbedding(check_positive_integer("embedding", embedding), shape.dimension)
    forms = {"gram": lambda: GramAttention(Mixing()), "reassociated": lambda: ReassociatedAttention(Mixing()),
             "token": lambda: TokenAttention(ACTIVATIONS[attention, mask]())}
    return Transformer(shape, forms[form](), attention, form, mask, embedding,
                       check_finite_positive("init_scale", init_scale, zero_allowed=True))
