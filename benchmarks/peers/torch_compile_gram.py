"""The Gram form in PyTorch with loss and gradient compiled by `torch.compile`; the mathematics is `torch_gram`'s.

Batch last, Inductor fuses each broadcast product with its sum, in AVX-512 where the processor has it.
"""
from functools import partial

from benchmarks.peers import torch_compile, torch_gram

LARGEST_BATCH_LAST = 12              # dimension; above it bmm is faster here too

check = torch_compile.check


def layout_of(case):
    """The layout that is faster when compiled."""
    return torch_gram.layout_of(case, LARGEST_BATCH_LAST)


def value_and_gradient(theta, Z, target, case):
    """Loss and gradient by the compiled function from tokens Z, in the dtype of theta; NumPy in, NumPy out."""
    loss = partial(torch_gram.loss_of_tokens, form=layout_of(case))
    return torch_compile.value_and_gradient(theta, Z, target, case, loss)


class Runner(torch_compile.Runner):
    """What is timed: `torch_compile.Runner` with the Gram loss and draws."""

    def __init__(self, case, seed=0):
        super().__init__(case, seed, *torch_gram.functions(case, layout_of(case)))
