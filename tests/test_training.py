"""The training loop: what it records, what it repeats, how it ends."""

import numpy as np
import pytest

import lintransformer as lt
from lintransformer.optimizers import clip
from lintransformer.training import PATIENCE, prompt_statistics

MODEL, DISTRIBUTION = lt.build_model(2, 3), lt.PromptDistribution(3, 8)
EVALUATION = [lt.evaluation_batch(DISTRIBUTION, seed, 50) for seed in (99, 100)]


def run(optimizer=None, **options):
    options = {"steps": 25, "batch_size": 16, "evaluation": EVALUATION, "record_every": 10, **options}
    return lt.train(MODEL, DISTRIBUTION, optimizer or lt.Adam(0.02), **options)


def with_a_rare_prompt(size):
    """16 prompts, the fourth with a Gram matrix that is `size` times as large."""
    batch = DISTRIBUTION.draw_gram(np.random.default_rng(0), 16)
    return lt.GramPrompts(batch.G * np.where(np.arange(16) == 3, size, 1)[:, None, None], batch.z, batch.target, 8)


def test_history_has_the_shapes_it_states():
    history = run(theta_at=[0, 3, 4])
    arrays = history.arrays
    assert history.status == "done" and history.summary["steps"] == 25
    assert arrays["step"].tolist() == [0, 10, 20, 25] and arrays["theta_step"].tolist() == [0, 3, 4, 25]
    assert arrays["theta"].shape == (4, MODEL.size) and arrays["theta"].dtype == np.float32
    for name in ("mean", "median", "trimmed"):
        assert arrays[f"evaluation_{name}"].shape == (2, 4)
    assert arrays["training_loss"].shape == arrays["gradient_norm"].shape == (25,)
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_recorded_losses_are_those_of_the_recorded_points():
    history = run(theta_at=[10, 20])
    for i, step in enumerate(history.arrays["step"]):
        theta = history.arrays["theta"][list(history.arrays["theta_step"]).index(step)].astype(float)
        for batch, mean in zip(EVALUATION, history.arrays["evaluation_mean"][:, i]):
            assert np.isclose(lt.value(MODEL, theta, batch), mean, rtol=1e-12)


def test_the_loop_is_the_algorithm_written_out():
    """Draw, gradient, clip, update: three steps by hand with the reference give the same theta."""
    history = run(lt.SGD(0.1, momentum=0.9), steps=3, dtype="float64", clip_threshold=0.5)
    theta = MODEL.init(lt.stream(0, "initialisation"))
    rng, velocity = lt.stream(0, "training"), 0
    for _ in range(3):
        gradient = lt.gradient(MODEL, theta, DISTRIBUTION.draw_gram(rng, 16))
        velocity = 0.9 * velocity + clip(gradient, 0.5)[0]
        theta = theta - 0.1 * velocity
    assert np.allclose(history.arrays["theta"][-1], theta, rtol=1e-12)


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, second, other = run(), run(), run(seed=1)
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)
    assert not np.array_equal(first.arrays["theta"], other.arrays["theta"])


def test_recording_changes_nothing():
    often, never = run(record_every=1, theta_at=range(25)), run(record_every=25, evaluation=())
    assert np.array_equal(often.arrays["theta"][-1], never.arrays["theta"][-1])
    assert never.arrays["evaluation_mean"].shape == (0, 2)


def test_optimizers_under_one_seed_start_alike_and_see_the_same_prompts():
    sgd, adam = run(lt.SGD(0.01)), run()
    assert np.array_equal(sgd.arrays["theta"][0], adam.arrays["theta"][0])
    assert sgd.arrays["training_loss"][0] == adam.arrays["training_loss"][0]


@pytest.mark.parametrize("optimizer", [lt.SGD(0.02, 0.9), lt.Adam(0.02), lt.SignDescent(0.002), lt.SGD(0.05)])
def test_every_optimizer_learns(optimizer):
    history = run(optimizer, steps=400, batch_size=100)
    losses = history.arrays["evaluation_mean"][0]
    assert losses[-1] < 0.5 * losses[0]


def test_a_run_that_diverges_is_kept_and_says_so():
    history = run(lt.SGD(1e6), steps=50, clip_threshold=None)
    assert history.status == "diverged" and history.summary["steps"] < 50
    assert len(history.arrays["training_loss"]) <= history.summary["steps"] + 1
    assert history.arrays["theta_step"][-1] == history.summary["steps"]


def test_a_rare_prompt_that_overflows_float32_does_not_end_a_run():
    """One prompt with a loss of 10^60: the gradient is computed in float64 and clipped to the threshold."""
    rare = with_a_rare_prompt(1e30)
    common = DISTRIBUTION.draw_gram(np.random.default_rng(1), 16)
    history = run(lt.SGD(0.1), batch=rare, steps=3)
    assert history.status == "done" and history.summary["not_finite"]["float32"] >= 1
    assert np.isfinite(history.arrays["gradient_norm"]).all() and history.arrays["gradient_norm"].max() > 1e19
    moved = np.diff(history.arrays["theta"][[0, -1]].astype(float), axis=0)
    assert 0 < np.sqrt((moved**2).sum()) <= 0.3 * (1 + 1e-6)
    assert run(lt.SGD(0.1), batch=common, steps=3).summary["not_finite"] == {"float32": 0, "float64": 0}


def test_gradients_that_overflow_float64_count_as_zero_until_there_are_too_many():
    rare = with_a_rare_prompt(1e200)
    history = run(lt.SGD(0.1), batch=rare, steps=30)
    assert history.status == "diverged" and history.summary["not_finite"]["float64"] == PATIENCE
    assert np.array_equal(history.arrays["theta"][0], history.arrays["theta"][-1])


def test_a_run_past_its_deadline_says_so():
    history = run(deadline_seconds=0.0)
    assert history.status == "timed out" and history.summary["steps"] == 0
    assert history.arrays["training_loss"].shape == (0,)


def test_progress_is_reported_at_each_record():
    steps = []
    run(progress=steps.append)
    assert steps == [0, 10, 20, 25]


def test_full_batch_training_sees_one_batch_only():
    batch = DISTRIBUTION.draw_gram(np.random.default_rng(0), 16)
    history = run(lt.SGD(1e-6), batch=batch, dtype="float64")
    theta = history.arrays["theta"][0]
    assert np.isclose(history.arrays["training_loss"][0], lt.value(MODEL, theta, batch))
    assert (np.diff(history.arrays["training_loss"]) < 0).all()              # no noise: every small step descends


def test_trimmed_mean_and_median_forget_a_rare_prompt():
    losses = np.ones(100)
    losses[3] = 1e9
    assert prompt_statistics(losses) == (pytest.approx(1e7, rel=1e-2), 1.0, 1.0)
    ranks = prompt_statistics(np.arange(100.0) ** 2)
    assert ranks[2] == np.mean(np.arange(5.0, 95.0) ** 2)                    # 5% off either end
    assert np.isnan(prompt_statistics([np.nan] + [1.0] * 99)).all()


@pytest.mark.parametrize("options, message", [
    (dict(steps=0), "steps must be an integer of at least 1, not 0"),
    (dict(batch_size=0), "batch size must be an integer of at least 1, not 0"),
    (dict(record_every=0), "record_every must be an integer of at least 1, not 0"),
    (dict(clip_threshold=0.0), "clip_threshold must be a finite number greater than 0, not 0.0"),
    (dict(seed=-1), "seed must be an integer of at least 0, not -1"),
    (dict(dtype="float16"), "dtype 'float16' is not known; allowed: float32, float64"),
    (dict(theta_at=[1.5]), "theta_at must hold integers from 0 to 25, the number of steps, not 1.5"),
    (dict(theta_at="1"), "theta_at must hold integers from 0 to 25, the number of steps, not '1'"),
    (dict(theta_at=[-1]), "theta_at must hold integers from 0 to 25, the number of steps, not -1"),
    (dict(theta_at=[3, 26]), "theta_at must hold integers from 0 to 25, the number of steps, not 26"),
    (dict(theta_at=7), "theta_at must be a sequence of integers, not 7"),
    (dict(theta_at=np.ma.masked_equal([1, 2], 2)), "theta_at: masked arrays are not supported: .*"),
    (dict(deadline_seconds=float("nan")), "deadline_seconds must be a finite number at least 0, not nan"),
    (dict(deadline_seconds=-1), "deadline_seconds must be a finite number at least 0, not -1"),
    (dict(progress=3), "progress must be None or callable, not 3"),
    (dict(seed=True), "seed must be an integer of at least 0, not True"),
    (dict(batch_size="a", batch=EVALUATION[0]), "batch size must be an integer of at least 1, not 'a'"),
    (dict(theta=np.full(36, np.nan)), "theta must be finite, but 36 of 36 entries are not; the first is nan at 0"),
    (dict(theta=np.full(36, 1e300)), "theta in float32 must be finite, .*"),
    (dict(theta=np.ma.masked_equal(np.zeros(36), 0)), "theta: masked arrays are not supported: .*"),
])
def test_refusals(options, message):
    with pytest.raises(lt.InputError, match=f"^{message}$"):
        run(**options)


@pytest.mark.parametrize("wrong, message", [
    (lambda: lt.train(MODEL, DISTRIBUTION, "adam", steps=1), "optimizer must have init and update, .*, not 'adam'"),
    (lambda: lt.train(MODEL, "gaussian", lt.Adam(0.1), steps=1),
     r"distribution must have draw, as lt.PromptDistribution\(\) has, not 'gaussian'"),
    (lambda: run(evaluation=EVALUATION[0]), "evaluation must be list or tuple, not GramPrompts"),
    (lambda: run(evaluation=[EVALUATION[0]] * 2), "evaluation holds the same batch twice;.*"),
    (lambda: run(batch=np.zeros(3)), "batch must be Prompts or GramPrompts, not ndarray"),
    (lambda: run(theta=np.zeros(3)), r"theta must have shape \(36,\) for this model, not \(3,\)"),
    (lambda: run(theta=np.zeros(36, complex)), "theta must be real, not of dtype complex128"),
    (lambda: lt.train(None, DISTRIBUTION, lt.Adam(0.1), steps=1), "model must have size and value_and_gradient, .*"),
    (lambda: lt.train(MODEL, DISTRIBUTION, lt.Adam, steps=1), "optimizer must have init and update, as lt.Adam.*"),
    (lambda: lt.evaluation_batch(None, 0, 5), "distribution must have draw, as .* has, not None"),
    (lambda: prompt_statistics(np.ones(3) * 1j), "losses must hold real numbers, not dtype complex128"),
    (lambda: prompt_statistics([]), r"losses must have shape \(B,\) with B at least 1, not \(0,\)"),
])
def test_more_refusals(wrong, message):
    with pytest.raises(lt.InputError, match=f"^{message}$"):
        wrong()


def test_every_number_has_the_dtype_that_was_asked_for():
    """NumPy's float64 scalars, as np.geomspace gives them, do not turn a float32 run into a float64 one."""
    for optimizer in (lt.SGD(np.float64(0.02), np.float64(0.9)), lt.Adam(np.float64(0.02))):
        for dtype in ("float32", "float64"):
            history = run(optimizer, theta=np.full(36, 0.01), dtype=dtype)
            assert history.arrays["theta"].dtype == dtype


def test_a_given_start_is_where_training_starts_and_stays_untouched():
    start = np.linspace(-0.1, 0.1, 36).astype(np.float32)
    kept = start.copy()
    history = run(theta=start)
    assert np.array_equal(history.arrays["theta"][0], kept) and np.array_equal(start, kept)


def test_the_seed_moves_the_start_and_the_prompts_each():
    first, other = run(), run(seed=1)
    assert not np.array_equal(first.arrays["theta"][0], other.arrays["theta"][0])
    start = first.arrays["theta"][0]
    same_start = run(theta=start), run(theta=start, seed=1)
    assert same_start[0].arrays["training_loss"][0] != same_start[1].arrays["training_loss"][0]


def test_evaluation_batches_follow_their_seed_and_form():
    batches = [lt.evaluation_batch(DISTRIBUTION, seed, 5) for seed in (0, 0, 1)]
    assert np.array_equal(batches[0].target, batches[1].target)
    assert not np.array_equal(batches[0].target, batches[2].target)
    assert isinstance(batches[0], lt.GramPrompts)
    assert isinstance(lt.evaluation_batch(DISTRIBUTION, 0, 5, tokens=True), lt.Prompts)


def test_without_clipping_an_overflow_ends_a_run_before_it_reaches_theta():
    rare = with_a_rare_prompt(1e30)
    history = run(lt.SGD(0.1), batch=rare, clip_threshold=None)
    assert history.status == "diverged" and history.summary["steps"] == 0
    assert np.isfinite(history.arrays["theta"]).all() and history.summary["not_finite"]["float64"] == 1


def test_gradients_that_are_not_finite_are_counted_in_a_row():
    """PATIENCE is about batches in a row: finite ones in between start the count anew."""
    class Alternating(lt.PromptDistribution):
        def sampler(self, size, dtype, form):
            sampler, self_draws = super().sampler(size, dtype, form), iter(range(10**6))

            class Sampler:
                def draw(self, rng):
                    sampler.draw(rng)
                    size = 1e200 if next(self_draws) % PATIENCE else 1.0
                    return lt.Prompts(np.ones((4, 4, 9)) * [[1], [1], [1], [0]] * size, np.ones(4)).gram()
            return Sampler()

    history = lt.train(MODEL, Alternating(3, 8), lt.SGD(0.01), steps=3 * PATIENCE, batch_size=4)
    assert history.status == "done" and history.summary["not_finite"]["float64"] == 3 * (PATIENCE - 1)


def test_a_distribution_of_another_dimension_is_refused():
    with pytest.raises(lt.InputError, match="distribution has dimension 4, but the model has dimension 3"):
        lt.train(MODEL, lt.PromptDistribution(4, 5), lt.Adam(0.1), steps=1)


@pytest.mark.parametrize("steps", [1, 3, PATIENCE - 1, PATIENCE + 5])
def test_a_run_without_one_finite_gradient_has_diverged(steps):
    """Shorter than its patience it ended "done", at the point it started from."""
    history = run(theta=np.full(36, 1e30), steps=steps, dtype="float64", evaluation=())
    assert history.status == "diverged" and history.summary["not_finite"]["float64"] == min(steps, PATIENCE)
    assert np.array_equal(history.arrays["theta"][-1], np.full(36, 1e30))


def test_theta_is_kept_wherever_it_is_asked_for():
    for wanted in ([25, 3], (3, 25), {3, 25}, np.array([3, 25]), range(3, 26, 22), iter([3, 25]), [np.int64(3)]):
        assert run(theta_at=wanted).arrays["theta_step"].tolist() == [0, 3, 25]
