"""Benchmarks and cross-checks against PyTorch, JAX and C. The package never imports this."""
