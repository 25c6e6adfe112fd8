"""Make `tests/data/optimizer_trajectories.npz`: 20 steps of PyTorch's optimizers, float64, one start.

    python -m benchmarks.optimizer_trajectories [--out FILE]

Each trajectory follows the gradient of the linear Transformer of eq. 4-8 on one fixed batch, computed by
PyTorch's autodiff. Every matrix of the model is a parameter tensor of its own, so that clipping the joint
norm differs from clipping each. Arrays: `Z`, `target`, `theta0`, `threshold`, and for every optimizer,
without and with clipping, `NAME/clip=no|yes/theta` (21, p), `.../gradient` (20, p) before clipping and
`.../norm` (20,).
"""
import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.cases import Case, prompts
from benchmarks.peers import layout, torch_literal
from lintransformer.paper.store import npz_bytes, write_file

CASE = Case("trajectory", layers=2, dimension=3, context_length=7, batch_size=4)
STEPS = 20
THRESHOLD = 1.0
OUT = Path(__file__).parents[1] / "tests" / "data" / "optimizer_trajectories.npz"


class SignDescent(torch.optim.Optimizer):
    """theta <- theta - lr sign(g): PyTorch ships no such optimizer."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(torch.sign(parameter.grad), alpha=group["lr"])


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "sgdm": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
    "adam": lambda parameters: torch.optim.AdamW(parameters, lr=0.05, betas=(0.9, 0.9), weight_decay=0),
    "sign": lambda parameters: SignDescent(parameters, lr=0.01),
}


def trajectory(make_optimizer, theta0, Z, target, threshold):
    """theta (21, p), gradient (20, p) before clipping, norm (20,) as PyTorch's clipping returns it."""
    width = CASE.dimension**2
    parameters = [torch.nn.Parameter(torch.tensor(part)) for part in np.split(theta0, len(theta0) // width)]
    optimizer = make_optimizer(parameters)
    thetas, gradients, norms = [theta0], [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch_literal.loss(torch.cat(parameters), Z, target, CASE).backward()
        gradients.append(torch.cat([parameter.grad for parameter in parameters]).numpy())
        limit = torch.inf if threshold is None else threshold
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, limit).item())
        optimizer.step()
        thetas.append(torch.cat(parameters).detach().numpy())
    return np.array(thetas), np.array(gradients), np.array(norms)


def compute():
    """All arrays of the data file."""
    Z, target = prompts(CASE, seed=0)
    theta0 = 0.3 * np.random.default_rng(0).standard_normal(layout.size(CASE))
    arrays = {"Z": Z, "target": target, "theta0": theta0, "threshold": np.array(THRESHOLD)}
    batch = torch.tensor(Z), torch.tensor(target)
    for name, make_optimizer in OPTIMIZERS.items():
        for clipped, threshold in (("no", None), ("yes", THRESHOLD)):
            theta, gradient, norm = trajectory(make_optimizer, theta0, *batch, threshold)
            if threshold is not None and not norm.min() < threshold < norm.max():
                raise RuntimeError(f"{name}: norms in [{norm.min():.3g}, {norm.max():.3g}] do not lie on "
                                   f"both sides of {threshold}; the clipping would not be tested")
            if not np.isfinite(theta).all():
                raise RuntimeError(f"{name} with clip={clipped} diverges; choose a smaller learning rate")
            run = f"{name}/clip={clipped}"
            arrays.update({f"{run}/theta": theta, f"{run}/gradient": gradient, f"{run}/norm": norm})
    return arrays


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizer_trajectories",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args(argv).out
    arrays = compute()
    write_file(out, npz_bytes(arrays))
    print(f"{out}: {len(arrays)} arrays, PyTorch {torch.__version__}")
    for name, array in arrays.items():
        if name.endswith("norm"):
            print(f"  {name:20} from {array.max():7.3f} down to {array.min():.3f}")


if __name__ == "__main__":
    main()
