"""The other implementations: the same model as eq. 4-8 states it, written for PyTorch, JAX and C.

Every module here is written from the paper's formulas, not from this package's code, so that agreement means
something.
"""
