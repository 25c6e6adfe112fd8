"""Linear attention in JAX in Gram form with many training steps in one compiled call.

The loss, draw, clip and Adam are those of `jax_gram`; the loop over steps is XLA's too, so that no Python and
no dispatch stand between two steps. `lax.fori_loop` with an open number of steps is the loop of `lax.scan`.
"""
import jax

from benchmarks.peers import jax_gram

value_and_gradient = jax_gram.value_and_gradient


class Runner(jax_gram.Runner):
    """What is timed: `steps(count)`, the whole loop in one call."""

    def __init__(self, case, seed=0):
        super().__init__(case, seed)
        step = self._step

        @jax.jit
        def steps(count, state, key):
            return jax.lax.fori_loop(0, count, lambda _, now: step(*now), (state, key))

        self._steps = steps

    def steps(self, count):
        """`count` times draw, gradient, clip, Adam: one compiled call, waited for."""
        self.state, self.key = self._steps(count, self.state, self.key)
        self.state[0].block_until_ready()
