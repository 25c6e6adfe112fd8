"""The model in JAX, in token form as eq. 4-8 write it, compiled whole by `jax.jit`.

Same conventions as `torch_literal`. A training step (draw, gradient, clip, Adam) is one compiled function, so
that JAX is measured without any Python between its operations.
"""
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import layout

def scores(S, attention, mask):
    """act(Z^T Q Z), S of shape (B, keys, queries)."""
    if mask == "before":
        S = S.at[:, -1].set(-jnp.inf if attention == "softmax" else 0.0)
    activations = {"linear": lambda S: S, "relu": jax.nn.relu, "softmax": partial(jax.nn.softmax, axis=1)}
    return activations[attention](S)


def matrices(attention, case):
    """Dense P and Q of every layer and head, (L, H, d+1, d+1) each."""
    P, Q = attention[:, :, 0], attention[:, :, 1]
    if case.parametrization == "full":
        return P, Q
    if case.parametrization == "separate":
        Q = Q.mT @ attention[:, :, 2]
    pad = lambda matrix: jnp.pad(matrix, ((0, 0), (0, 0), (0, 1), (0, 1)))
    return pad(P).at[:, :, -1, -1].set(1.0), pad(Q)


def embed(X, parts):
    """The ReLU MLP on covariates X (B, d, tokens)."""
    hidden = jax.nn.relu(parts["W1"] @ X + parts["b1"][:, None])
    return parts["W2"] @ hidden + parts["b2"][:, None]


def loss(theta, Z, target, case):
    """Mean squared error of TF_L = -[Z_L]_{d+1, n+1} for tokens Z (B, d+1, n+1)."""
    parts = layout.unpack(theta, case)
    if case.embedding is not None:
        Z = jnp.concatenate([embed(Z[:, :-1], parts), Z[:, -1:]], axis=1)
    n = Z.shape[2] - 1
    M = jnp.ones(n + 1, Z.dtype).at[n].set(0.0)
    P, Q = matrices(parts["attention"], case)
    for layer in range(case.layers):
        Z = Z + sum(P[layer, h] @ (Z * M) @ scores(Z.mT @ Q[layer, h] @ Z, case.attention, case.mask)
                    for h in range(case.heads)) / n
    return jnp.mean((-Z[:, -1, n] - target) ** 2)


def draw(key, case, teacher):
    """Fresh prompts Z and targets, float32."""
    shape = (case.batch_size, case.dimension, case.context_length + 1)
    key_x, key_w, key_r = jax.random.split(key, 3)
    X = jax.random.normal(key_x, shape)
    if case.covariates != "gaussian":
        X = X / jnp.linalg.norm(X, axis=1, keepdims=True)
    if case.covariates == "gamma":
        radius = jax.random.gamma(key_r, case.gamma_shape, (shape[0], 1, shape[2]))
        X = X * jnp.sqrt(case.gamma_scale * radius)
    w = jax.random.normal(key_w, (shape[0], 1, shape[1]))
    y = w @ (X if teacher is None else embed(X, teacher))
    return jnp.concatenate([X, y.at[:, 0, -1].set(0.0)], axis=1), y[:, 0, -1]


def random_teacher(case, seed):
    """Weights of the fixed MLP of Appendix B, or None for the linear task."""
    if case.response is None:
        return None
    rng, d, h = np.random.default_rng(seed), case.dimension, case.response
    uniform = lambda fan_in, *shape: jnp.asarray(rng.uniform(-1, 1, shape) / np.sqrt(fan_in), jnp.float32)
    return {"W1": uniform(d, h, d), "b1": uniform(d, h), "W2": uniform(h, d, h), "b2": uniform(h, d)}


def clip_and_adam(state, gradient, case):
    """One clipped Adam update on state (theta, m, v, t), betas (0.9, 0.9), epsilon 1e-8 outside the root."""
    theta, m, v, t = state
    gradient = gradient * jnp.minimum(1.0, case.clip_threshold / (jnp.linalg.norm(gradient) + 1e-6))
    m, v, t = 0.9 * m + 0.1 * gradient, 0.9 * v + 0.1 * gradient**2, t + 1
    unbias = 1 - 0.9**t
    return theta - case.learning_rate * (m / unbias) / (jnp.sqrt(v / unbias) + 1e-8), m, v, t


def value_and_gradient(theta, Z, target, case):
    """Loss and gradient by autodiff in theta's dtype (float64: set jax_enable_x64); NumPy in, NumPy out."""
    arguments = (jnp.asarray(np.asarray(array, theta.dtype)) for array in (theta, Z, target))
    value, gradient = jax.jit(jax.value_and_grad(partial(loss, case=case)))(*arguments)
    return float(value), np.asarray(gradient)


class Runner:
    """What is timed, for any pair of `loss(theta, *batch, case)` and `draw(key, case, teacher)`."""

    def __init__(self, case, seed=0, loss=loss, draw=draw):
        teacher = random_teacher(case, seed)
        self._value_and_gradient = jax.jit(jax.value_and_grad(partial(loss, case=case)))
        self._draw = jax.jit(partial(draw, case=case, teacher=teacher))

        @partial(jax.jit, donate_argnums=0)
        def step(state, key):
            key, now = jax.random.split(key)
            gradient = jax.grad(partial(loss, case=case))(state[0], *draw(now, case, teacher))
            return clip_and_adam(state, gradient, case), key

        @jax.jit
        def noise(theta, centre, key):
            key, now = jax.random.split(key)
            gradient = jax.grad(partial(loss, case=case))(theta, *draw(now, case, teacher))
            return jnp.linalg.norm(gradient - centre), key

        self._step, self._noise = step, noise
        self.key, first, batch = jax.random.split(jax.random.key(seed), 3)
        theta = case.init_scale * jax.random.normal(first, (layout.size(case),))
        self.theta = jnp.array(theta)
        self.state = (theta, jnp.zeros_like(theta), jnp.zeros_like(theta), jnp.zeros((), jnp.int32))
        self.batch = self._draw(batch)

    def step(self):
        """Draw, gradient, clip, Adam: one compiled call, waited for."""
        self.state, self.key = self._step(self.state, self.key)
        self.state[0].block_until_ready()

    def gradient(self):
        """Loss and gradient on a fixed batch."""
        return self._value_and_gradient(self.theta, *self.batch)[1].block_until_ready()

    def noise(self, draws):
        """Norms of (gradient on a fresh batch - gradient on a fixed one), (draws,)."""
        centre, norms = self.gradient(), np.empty(draws)
        for i in range(draws):
            norms[i], self.key = self._noise(self.theta, centre, self.key)
        return norms
