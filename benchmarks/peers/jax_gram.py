"""Linear attention in JAX on Gram matrices, compiled whole by `jax.jit`: our own central trick, given to JAX.

A_l = I + sum_h P_l G_l Q_l / n, z_{l+1} = A_l z_l, G_{l+1} = A_l G_l A_l^T, prediction -z_L[d]; gradients by
autodiff. The batch stands last, (d+1, d+1, B), as in our own code: under XLA, too, that is twice as fast as
batch first at d = 5. An MLP embedding stands before the Gram matrix, which then costs O(n) again.
"""
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import jax_literal, layout


def loss(theta, G, z, target, case):
    """Mean squared error from G (d+1, d+1, B) and query columns z (d+1, B)."""
    parts, n = layout.unpack(theta, case), case.context_length
    P, Q = jax_literal.matrices(parts["attention"], case)
    identity = jnp.eye(case.dimension + 1, dtype=G.dtype)[:, :, None]
    for layer in range(case.layers):
        A = identity + sum(jnp.einsum("ijb,jk->ikb", jnp.einsum("ij,jkb->ikb", P[layer, h], G), Q[layer, h])
                           for h in range(case.heads)) / n
        z = jnp.einsum("ijb,jb->ib", A, z)
        G = jnp.einsum("ijb,kjb->ikb", jnp.einsum("ijb,jkb->ikb", A, G), A)
    return jnp.mean((-z[-1] - target) ** 2)


def of_tokens(Z):
    """G (d+1, d+1, B) and z (d+1, B) of tokens Z (B, d+1, n+1)."""
    context = Z[:, :, :-1]
    return jnp.moveaxis(context @ context.mT, 0, -1), Z[:, :, -1].T


def loss_of_tokens(theta, Z, target, case):
    """The same from tokens Z, with the embedding if there is one."""
    if case.embedding is not None:
        embedded = jax_literal.embed(Z[:, :-1], layout.unpack(theta, case))
        Z = jnp.concatenate([embedded, Z[:, -1:]], axis=1)
    return loss(theta, *of_tokens(Z), target, case)


def wishart(key, case):
    """X X^T (d, d, B) for X (d, n) standard normal, n >= d, by Bartlett's factor: O(d^2) numbers each."""
    d, B = case.dimension, case.batch_size
    key_chi, key_normal = jax.random.split(key)
    degrees = case.context_length - jnp.arange(d, dtype=jnp.float32)
    chi = jnp.sqrt(2 * jax.random.gamma(key_chi, degrees[:, None] / 2, (d, B)))
    below = jax.random.normal(key_normal, (d, d, B)) * jnp.tril(jnp.ones((d, d)), -1)[:, :, None]
    T = below + chi[:, None] * jnp.eye(d)[:, :, None]
    return jnp.einsum("ijb,kjb->ikb", T, T)


def draw(key, case, teacher):
    """Fresh (G, z, target), float32; through tokens, or as Wishart matrices where JAX does that faster."""
    n, d = case.context_length, case.dimension
    if case.covariates != "gaussian" or teacher is not None or n < d + 30:
        Z, target = jax_literal.draw(key, case, teacher)
        return *of_tokens(Z), target
    key_s, key_w, key_x = jax.random.split(key, 3)
    S, w, x = wishart(key_s, case), *(jax.random.normal(k, (d, case.batch_size)) for k in (key_w, key_x))
    g = jnp.einsum("ijb,jb->ib", S, w)
    last_row = jnp.concatenate([g, jnp.sum(w * g, 0)[None]])
    G = jnp.concatenate([jnp.concatenate([S, g[:, None]], 1), last_row[None]])
    return G, jnp.pad(x, ((0, 1), (0, 0))), jnp.sum(w * x, 0)


def value_and_gradient(theta, Z, target, case):
    """Loss and gradient by autodiff from tokens Z, in the dtype of theta; NumPy in, NumPy out."""
    arguments = (jnp.asarray(np.asarray(array, theta.dtype)) for array in (theta, Z, target))
    value, gradient = jax.jit(jax.value_and_grad(partial(loss_of_tokens, case=case)))(*arguments)
    return float(value), np.asarray(gradient)


class Runner(jax_literal.Runner):
    """What is timed: `jax_literal.Runner` with the Gram loss and draws."""

    def __init__(self, case, seed=0):
        if case.embedding is None:
            super().__init__(case, seed, loss, draw)
        else:
            super().__init__(case, seed, loss_of_tokens, jax_literal.draw)
