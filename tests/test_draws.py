"""Who draws prompts: a subclass that overrides `draw` or `draw_gram` is used everywhere; draws own their numbers."""

import numpy as np
import pytest

import lintransformer as lt

GAUSSIAN, GAMMA = lt.PromptDistribution(3, 7), lt.PromptDistribution(3, 5, "gamma", gamma_shape=1.5, gamma_scale=2.0)


class Doubled(lt.PromptDistribution):
    """Overrides `draw` alone: covariates, and hence responses, twice as large."""

    def draw(self, rng, size, dtype=np.float64):
        batch = super().draw(rng, size, dtype)
        return lt.Prompts(2 * batch.Z, 2 * batch.target)


class Constant(lt.PromptDistribution):
    """Overrides `draw_gram` alone."""

    def draw_gram(self, rng, size, dtype=np.float64):
        rng.random()
        return lt.GramPrompts(np.tile(np.eye(self.dimension + 1), (size, 1, 1)),
                              np.tile([1.0] * self.dimension + [0.0], (size, 1)), np.ones(size), self.context_length)


@pytest.mark.parametrize("options", [dict(), dict(attention="softmax")], ids=["gram", "tokens"])
def test_an_overridden_draw_is_what_everything_uses(options):
    model, distribution = lt.build_model(2, 3, **options), Doubled(3, 7)
    form = "tokens" if model.needs_tokens else "gram"
    drawn = distribution.draw(lt.stream(5, "training"), 6)
    sampled = distribution.sampler(6, form=form).draw(lt.stream(5, "training"))
    assert np.array_equal(sampled.gram().G, drawn.gram().G)
    evaluated = lt.evaluation_batch(distribution, 5, 6, tokens=model.needs_tokens)
    assert np.array_equal(evaluated.gram().G, distribution.draw(lt.stream(5, "evaluation"), 6).gram().G)

    run = lt.train(model, distribution, lt.SGD(0.01), steps=3, batch_size=6, dtype="float64", seed=5)
    theta, rng, losses = model.init(lt.stream(5, "initialisation")), lt.stream(5, "training"), []
    for _ in range(3):
        value, gradient = lt.value_and_gradient(model, theta, distribution.draw(rng, 6))
        losses.append(value)
        theta = theta - 0.01 * lt.clip(gradient, 1.0)[0]
    assert np.allclose(run.arrays["training_loss"], losses, rtol=1e-12)
    assert np.allclose(run.arrays["theta"][-1], theta, rtol=1e-12)

    noise = lt.gradient_noise(model, theta, distribution, draws=3, batch_size=6, reference=2, dtype="float64")
    rng = lt.stream(1, "noise reference")
    mean = np.mean([lt.gradient(model, theta, distribution.draw(rng, 6)) for _ in range(2)], axis=0)
    assert np.allclose(noise.gradient, mean, rtol=1e-10)


def test_an_overridden_draw_gram_is_used_and_has_no_tokens():
    model, distribution = lt.build_model(2, 3), Constant(3, 7)
    run = lt.train(model, distribution, lt.SGD(0.01), steps=2, batch_size=4, dtype="float64")
    start = run.arrays["theta"][0]
    expected = lt.value(model, start, distribution.draw_gram(np.random.default_rng(0), 4))
    assert np.isclose(run.arrays["training_loss"][0], expected, rtol=1e-12)
    with pytest.raises(lt.InputError, match="Constant overrides draw_gram alone: it has no tokens; override draw"):
        lt.train(lt.build_model(2, 3, attention="softmax"), distribution, lt.SGD(0.01), steps=2, batch_size=4)


def test_draws_own_their_numbers():
    """`draw` and `draw_gram` hand out batches that no later draw overwrites, read-only."""
    rng = np.random.default_rng(0)
    for draw in (GAMMA.draw, GAUSSIAN.draw_gram):
        first = draw(rng, 4)
        kept = first.gram().G.copy()
        draw(rng, 4)
        assert np.array_equal(first.gram().G, kept) and not first.target.flags.writeable
        assert first.astype(np.float64) is first


def test_a_sampler_s_batch_is_copied_where_it_must_last():
    model, sampler = lt.build_model(2, 3), GAUSSIAN.sampler(4)
    rng, v = np.random.default_rng(0), np.ones(36)
    batch = sampler.draw(rng)
    theta = model.init(rng)
    H, expected = lt.hessian(model, theta, batch), lt.hessian_vector_product(model, theta, batch, v)
    sampler.draw(rng)
    assert np.array_equal(H @ v, expected)


@pytest.mark.parametrize("rng", [np.random.RandomState(0), None, 3, "seed"])
def test_only_a_generator_draws(rng):
    for draw in (lambda: GAMMA.draw(rng, 2), lambda: GAUSSIAN.draw_gram(rng, 2),
                 lambda: lt.build_model().init(rng), lambda: Doubled(3, 5).sampler(2).draw(rng)):
        with pytest.raises(lt.InputError, match="rng must be a numpy.random.Generator, as np.random.default_rng"):
            draw()
