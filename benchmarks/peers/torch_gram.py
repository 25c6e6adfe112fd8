"""Linear attention in PyTorch eager on Gram matrices: our central trick, given to PyTorch.

A_l = I + sum_h P_l G_l Q_l / n, z_{l+1} = A_l z_l, G_{l+1} = A_l G_l A_l^T, prediction -z_L[d]; gradients by
autodiff. One recurrence in two layouts: batch last, (d+1, d+1, B), each product a broadcast multiplication
and a sum, which a compiler can fuse; and batch first, (B, d+1, d+1), by torch.bmm. Each peer takes what is
faster for it at the dimension.
"""
from functools import partial
from types import SimpleNamespace

import torch

from benchmarks.peers import layout, torch_literal

BATCH_LAST = SimpleNamespace(
    times=lambda A, B: (A[:, :, None] * B[None]).sum(1), transposed=lambda A: A.transpose(0, 1),
    shared=lambda A: A[:, :, None], entry=lambda z: z[-1, 0], stored=lambda A: A.movedim(0, -1).contiguous())
BATCH_FIRST = SimpleNamespace(
    times=torch.matmul, transposed=lambda A: A.mT,
    shared=lambda A: A, entry=lambda z: z[:, -1, 0], stored=lambda A: A)
LARGEST_BATCH_LAST = 6               # dimension, eager: from d = 8 on, bmm is twice as fast


def loss(theta, G, z, target, case, form):
    """Mean squared error from Gram matrices G and query columns z, laid out as `of_tokens` returns them."""
    parts, n = layout.unpack(theta, case), case.context_length
    P, Q = torch_literal.matrices(parts["attention"], case)
    identity = form.shared(torch.eye(case.dimension + 1, dtype=theta.dtype))
    for layer in range(case.layers):
        A = identity + sum(form.times(form.times(form.shared(P[layer, h]), G), form.shared(Q[layer, h]))
                           for h in range(case.heads)) / n
        z = form.times(A, z)
        if layer + 1 < case.layers:
            G = form.times(form.times(A, G), form.transposed(A))
    return (-form.entry(z) - target).square().mean()


def of_tokens(Z, form):
    """(G, z) of tokens Z (B, d+1, n+1), z a column."""
    context = Z[:, :, :-1]
    return form.stored(context @ context.mT), form.stored(Z[:, :, -1:])


def loss_of_tokens(theta, Z, target, case, form):
    """The same from tokens Z, with the embedding if there is one."""
    if case.embedding is not None:
        Z = torch_literal.embed(Z, layout.unpack(theta, case))
    return loss(theta, *of_tokens(Z, form), target, case, form)


def wishart(case):
    """X X^T (B, d, d) for X (d, n) standard normal, n >= d, by Bartlett's factor: O(d^2) numbers each."""
    d, B = case.dimension, case.batch_size
    degrees = case.context_length - torch.arange(d, dtype=torch.float32)
    chi = (2 * torch._standard_gamma((degrees / 2).expand(B, d))).sqrt()
    T = torch.randn(B, d, d).tril(-1) + torch.diag_embed(chi)
    return T @ T.mT


def draw(case, teacher, form):
    """Fresh (G, z, target), float32; through tokens, or as Wishart matrices by the rule of `jax_gram.draw`."""
    n, d, B = case.context_length, case.dimension, case.batch_size
    if case.covariates != "gaussian" or teacher is not None or n < d + 30:
        Z, target = torch_literal.draw(case, teacher)
        return *of_tokens(Z, form), target
    S, w, x = wishart(case), torch.randn(B, d, 1), torch.randn(B, d, 1)
    g = S @ w
    last_row = torch.cat([g.mT, w.mT @ g], dim=2)
    G = torch.cat([torch.cat([S, g], dim=2), last_row], dim=1)
    z = torch.nn.functional.pad(x, (0, 0, 0, 1))
    return form.stored(G), form.stored(z), (w * x).sum((1, 2))


def layout_of(case, largest=LARGEST_BATCH_LAST):
    """The layout of a case for a peer that is faster batch last up to d = `largest`."""
    return BATCH_LAST if case.dimension <= largest else BATCH_FIRST


def functions(case, form):
    """(loss, draw) of a case: on Gram matrices, or from tokens if there is an embedding."""
    if case.embedding is not None:
        return partial(loss_of_tokens, form=form), torch_literal.draw
    return partial(loss, form=form), partial(draw, form=form)


def value_and_gradient(theta, Z, target, case):
    """Loss and gradient by autodiff from tokens Z, in the dtype of theta; NumPy in, NumPy out."""
    return torch_literal.value_and_gradient(theta, Z, target, case, partial(loss_of_tokens, form=layout_of(case)))


class Runner(torch_literal.Runner):
    """What is timed: `torch_literal.Runner` with the Gram loss and draws."""

    def __init__(self, case, seed=0):
        super().__init__(case, seed, *functions(case, layout_of(case)))
