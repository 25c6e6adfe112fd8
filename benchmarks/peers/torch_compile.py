"""The token form in PyTorch with loss and gradient compiled by `torch.compile`; the mathematics is `torch_literal`'s.

Draws, clipping and Adam stay eager: Inductor's random numbers take several times as long as torch's own here.
"""
from functools import partial

import torch

from benchmarks.peers import torch_literal


def compiled(loss, case):
    """`loss` of one case, compiled forward and backward for its shapes alone.

    What was compiled before is forgotten: after eight cases torch would give up and run eagerly.
    """
    torch._dynamo.reset()
    return torch.compile(partial(loss, case=case), dynamic=False, fullgraph=True)


def check():
    """Compile one line, to find out whether this machine can; raises what torch raises if not."""
    torch.compile(lambda x: (2 * x).sum(), fullgraph=True)(torch.ones(3, requires_grad=True)).backward()


def value_and_gradient(theta, Z, target, case, loss=torch_literal.loss):
    """Loss and gradient by the compiled function, in the dtype of theta; NumPy in, NumPy out."""
    run = compiled(loss, case)
    return torch_literal.value_and_gradient(theta, Z, target, case,
                                            lambda theta, Z, target, case: run(theta, Z, target))


class Runner(torch_literal.Runner):
    """What is timed: `torch_literal.Runner` with its loss compiled."""

    def __init__(self, case, seed=0, loss=torch_literal.loss, draw=torch_literal.draw):
        super().__init__(case, seed, loss, draw)
        self._loss = compiled(loss, case)
