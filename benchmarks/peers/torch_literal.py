"""The model in PyTorch eager, in token form, as eq. 4-8 write it: the yardstick of the paper's readers.

Conventions beyond the paper are the authors': an activation acts over all n+1 tokens along the key axis i of
S_ij = z_i^T Q z_j, then M = diag(I_n, 0) masks the query token as a key, then the sum over keys is divided
by n.
"""
from functools import partial

import numpy as np
import torch

from benchmarks.peers import layout

def scores(S, attention, mask):
    """act(Z^T Q Z), S (B, keys, queries); mask "before": the activation does not see the query as a key."""
    if mask == "before":
        query = torch.zeros_like(S, dtype=torch.bool)
        query[:, -1] = True
        S = S.masked_fill(query, -torch.inf if attention == "softmax" else 0.0)
    if attention == "linear":
        return S
    if attention == "relu":
        return torch.relu(S)
    if attention == "softmax":
        return torch.softmax(S, dim=-2)
    raise ValueError(f"unknown attention {attention!r}: linear, softmax or relu")


def matrices(attention, case):
    """Dense P and Q of every layer and head, (L, H, d+1, d+1) each."""
    if case.parametrization == "full":
        return attention[:, :, 0], attention[:, :, 1]
    P, Q = attention[:, :, 0], attention[:, :, 1]
    if case.parametrization == "separate":
        Q = Q.mT @ attention[:, :, 2]
    corner = torch.zeros(case.dimension + 1, case.dimension + 1, dtype=P.dtype)
    corner[-1, -1] = 1.0
    pad = lambda matrix: torch.nn.functional.pad(matrix, (0, 1, 0, 1))
    return pad(P) + corner, pad(Q)


def embed(Z, parts):
    """The ReLU MLP on the covariates of all n+1 tokens; responses stay as they are."""
    X = parts["W1"] @ Z[:, :-1] + parts["b1"][:, None]
    X = parts["W2"] @ torch.relu(X) + parts["b2"][:, None]
    return torch.cat([X, Z[:, -1:]], dim=1)


def predict(theta, Z, case):
    """TF_L = -[Z_L]_{d+1, n+1} for tokens Z (B, d+1, n+1): shape (B,)."""
    parts = layout.unpack(theta, case)
    if case.embedding is not None:
        Z = embed(Z, parts)
    n = Z.shape[2] - 1
    M = torch.ones(n + 1, dtype=Z.dtype)
    M[n] = 0.0
    for P_heads, Q_heads in zip(*matrices(parts["attention"], case)):
        Z = Z + sum(P @ (Z * M) @ scores(Z.mT @ Q @ Z, case.attention, case.mask)
                    for P, Q in zip(P_heads, Q_heads)) / n
    return -Z[:, -1, n]


def loss(theta, Z, target, case):
    """Mean squared error over the batch, no factor 1/2."""
    return (predict(theta, Z, case) - target).square().mean()


def draw(case, teacher=None):
    """Fresh prompts Z and targets from torch's global generator, float32."""
    shape = (case.batch_size, case.dimension, case.context_length + 1)
    X = torch.randn(shape)
    if case.covariates != "gaussian":
        X = X / torch.linalg.vector_norm(X, dim=1, keepdim=True)
    if case.covariates == "gamma":
        radius = torch.distributions.Gamma(case.gamma_shape, 1 / case.gamma_scale)
        X = X * radius.sample((shape[0], 1, shape[2])).sqrt()
    w = torch.randn(shape[0], 1, shape[1])
    y = w @ (X if teacher is None else teacher(X))
    target = y[:, 0, -1].clone()
    y[:, 0, -1] = 0.0
    return torch.cat([X, y], dim=1), target


def random_teacher(case):
    """The fixed MLP of Appendix B (None for the linear task), acting on (B, d, n+1)."""
    if case.response is None:
        return None
    with torch.no_grad():
        first = torch.nn.Linear(case.dimension, case.response)
        last = torch.nn.Linear(case.response, case.dimension)
    for parameter in (*first.parameters(), *last.parameters()):
        parameter.requires_grad_(False)
    return lambda X: last.weight @ torch.relu(first.weight @ X + first.bias[:, None]) + last.bias[:, None]


def value_and_gradient(theta, Z, target, case, loss=loss):
    """Loss and gradient by autodiff, in the dtype of theta; NumPy in, NumPy out."""
    theta = torch.tensor(theta, requires_grad=True)
    as_theta = lambda array: torch.as_tensor(array, dtype=theta.dtype)
    value = loss(theta, as_theta(Z), as_theta(target), case)
    gradient, = torch.autograd.grad(value, theta)
    return value.item(), gradient.numpy()


def hessian(theta, Z, target, case):
    """Dense Hessian (p, p) by `torch.autograd.functional.hessian`, in the dtype of theta."""
    theta = torch.as_tensor(theta)
    Z, target = (torch.as_tensor(np.asarray(array), dtype=theta.dtype) for array in (Z, target))
    return torch.autograd.functional.hessian(lambda at: loss(at, Z, target, case), theta).numpy()


class Runner:
    """What is timed: theta in one tensor, torch's own Adam and clipping, float32, one thread.

    For any pair of `loss(theta, *batch, case)` and `draw(case, teacher)`.
    """

    def __init__(self, case, seed=0, loss=loss, draw=draw):
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self.case = case
        self._loss, self._draw = partial(loss, case=case), partial(draw, case, random_teacher(case))
        self.theta = torch.nn.Parameter(case.init_scale * torch.randn(layout.size(case)))
        self.optimizer = torch.optim.AdamW(
            [self.theta], lr=case.learning_rate, betas=(0.9, 0.9), eps=1e-8, weight_decay=0.0)
        self.batch = self._draw()

    def step(self):
        """Draw, gradient, clip, Adam."""
        self.optimizer.zero_grad()
        self._loss(self.theta, *self._draw()).backward()
        torch.nn.utils.clip_grad_norm_([self.theta], self.case.clip_threshold)
        self.optimizer.step()

    def gradient(self):
        """Loss and gradient on a fixed batch."""
        return torch.autograd.grad(self._loss(self.theta, *self.batch), self.theta)

    def hessian(self):
        """Dense Hessian on a fixed batch."""
        return hessian(self.theta.detach(), *self.batch, self.case)

    def noise(self, draws):
        """Norms of (gradient on a fresh batch - gradient on a fixed one), (draws,)."""
        centre, = self.gradient()
        norms = []
        for _ in range(draws):
            at, = torch.autograd.grad(self._loss(self.theta, *self._draw()), self.theta)
            norms.append(torch.linalg.vector_norm(at - centre).item())
        return np.array(norms)
