"""This package, driven as `lintransformer.train` and the diagnostics drive it."""
import tracemalloc

import lintransformer as lt
from lintransformer.diagnostics.hessian import hessian
from lintransformer.diagnostics.noise import gradient_noise


def distribution(case):
    """The prompt distribution of a case."""
    response = None if case.response is None else lt.ResponseNetwork(case.response)
    return lt.PromptDistribution(case.dimension, case.context_length, case.covariates, case.gamma_shape,
                                 case.gamma_scale, response=response)


def value_and_gradient(theta, Z, target, case):
    """Loss and gradient by the workspace, in the dtype of theta."""
    workspace = lt.Workspace(lt.build_model(**case.model), len(target), theta.dtype)
    return workspace.value_and_gradient(theta, lt.Prompts(Z.astype(theta.dtype), target.astype(theta.dtype)))


class Runner:
    """What is timed: float32, except for the Hessian, which is float64 here."""

    def __init__(self, case, seed=0):
        self.case, self.distribution = case, distribution(case)
        self.model = lt.build_model(**case.model)
        form = "tokens" if self.model.needs_tokens else "gram"
        self.workspace = lt.Workspace(self.model, case.batch_size, "float32")
        self.sampler = self.distribution.sampler(case.batch_size, "float32", form)
        fixed = self.distribution.sampler(case.batch_size, "float32", form)
        self.batch = fixed.draw(lt.stream(seed, "evaluation"))
        self.rng = lt.stream(seed, "training")
        self.start = self.theta = self.model.init(lt.stream(seed, "initialisation"), "float32")
        self.optimizer = lt.Adam(case.learning_rate)
        self.state = self.optimizer.init(self.theta)

    def step(self):
        """Draw, gradient, clip, Adam: the loop of `lintransformer.train`."""
        _, gradient = self.workspace.value_and_gradient(self.theta, self.sampler.draw(self.rng))
        clipped, _ = lt.clip(gradient, self.case.clip_threshold)
        self.theta, self.state = self.optimizer.update(self.state, self.theta, clipped)

    def gradient(self):
        """Loss and gradient on a fixed batch."""
        return self.workspace.value_and_gradient(self.start, self.batch)

    def hessian(self):
        """Dense Hessian on a fixed batch by central differences of the gradient, the package's default."""
        return hessian(self.model, self.start, self.batch).to_dense()

    def noise(self, draws):
        """Norms of (gradient on a fresh batch - gradient on a fixed one), (draws,)."""
        return gradient_noise(self.model, self.start, self.distribution, draws, self.case.batch_size,
                              reference=1).norms

    def allocated(self):
        """Largest memory in bytes that one step takes beyond what the step before left."""
        self.step()
        tracemalloc.start()
        self.step()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        self.step()
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        return peak
