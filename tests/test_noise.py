"""Gradient noise: the draws are what they claim, and the statistics find known tails."""

import numpy as np
import pytest
from scipy import stats

import lintransformer as lt
from lintransformer.diagnostics.noise import (STATISTICS, effective_dimensions, gaussian_norms,
                                              gradient_noise, hill, noise_statistics, quantile_plot)

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def setting():
    model = lt.build_model(layers=2, dimension=3)
    return model, model.init(lt.stream(0, "initialisation")), lt.PromptDistribution(3, 6)


def test_norms_are_of_batch_gradients_less_the_large_batch_gradient(setting):
    model, theta, distribution = setting
    options = dict(batch_size=20, reference=5, seed=3, dtype="float64")
    noise = gradient_noise(model, theta, distribution, draws=7, **options)

    def gradients(count, purpose):
        rng = lt.stream(3, purpose)
        return np.array([lt.gradient(model, theta, distribution.draw_gram(rng, 20)) for _ in range(count)])

    # equal batches: the mean is the large batch
    large = gradients(5, "noise reference").mean(axis=0)
    errors = gradients(7, "noise") - large
    assert np.allclose(noise.gradient, large, rtol=1e-12)
    assert np.allclose(noise.norms, np.linalg.norm(errors, axis=1), rtol=1e-10)
    spectrum = np.linalg.eigvalsh(errors.T @ errors / 7)
    assert np.allclose(noise.spectrum, np.clip(spectrum, 0, None), atol=1e-12)
    assert np.isclose(noise.spectrum.sum(), np.mean(noise.norms**2))


def test_any_number_of_draws_goes_through_in_blocks(setting, monkeypatch):
    whole = gradient_noise(*setting, draws=11, batch_size=5, reference=3)
    monkeypatch.setattr("lintransformer.diagnostics.noise.BLOCK", 4)
    parts = gradient_noise(*setting, draws=11, batch_size=5, reference=3)
    assert len(parts.norms) == 11 and np.array_equal(parts.norms, whole.norms)
    assert np.allclose(parts.spectrum, whole.spectrum, atol=1e-12)


def test_errors_fall_with_the_square_root_of_the_batch(setting):
    small, large = (gradient_noise(*setting, draws=300, batch_size=size, reference=50) for size in (25, 400))
    assert abs(small.norms.mean() / large.norms.mean() - 4) < 0.5


def test_tokens_and_gram_statistics_give_the_same_law(setting):
    model, theta, distribution = setting
    token = lt.build_model(layers=2, dimension=3, form="token")
    norms = [gradient_noise(m, theta, distribution, draws=400, batch_size=25, reference=40, seed=seed).norms
             for m, seed in ((model, 1), (token, 2))]
    assert stats.ks_2samp(*norms).pvalue > 1e-3


def test_float32_follows_float64(setting):
    single, double = (gradient_noise(*setting, draws=5, batch_size=50, reference=4, dtype=dtype)
                      for dtype in ("float32", "float64"))
    # other draws: the streams differ by dtype
    assert single.norms.dtype == np.float64
    assert abs(single.norms.mean() / double.norms.mean() - 1) < 0.5


def test_progress_runs_from_0_to_1(setting):
    told = []
    gradient_noise(*setting, draws=150, batch_size=2, reference=50, progress=told.append)
    assert told == sorted(told) and told[0] == 0 and told[-1] < 1


def test_gaussian_errors_look_gaussian_and_the_null_says_so():
    spectrum = np.array([4.0, 1.0, 1.0, 0.0])
    norms = gaussian_norms(spectrum, 40_000)
    assert abs(np.mean(norms**2) - 6) < 5 * np.sqrt(2 * 18 / 40_000)         # eq. 15.2
    assert effective_dimensions(spectrum) == 2.0
    assert effective_dimensions(np.ones(7)) == 7.0
    assert stats.kstest(gaussian_norms([9.0], 5000, seed=2) / 3, "halfnorm").pvalue > 1e-3
    assert np.array_equal(gaussian_norms(spectrum, 450), gaussian_norms(spectrum, 450))


def test_moments_are_scipy_s():
    norms = RNG(0).gamma(2, size=(3, 50))
    assert np.allclose(STATISTICS["skewness"](norms), stats.skew(norms, axis=-1), rtol=1e-12)
    assert np.allclose(STATISTICS["excess_kurtosis"](norms), stats.kurtosis(norms, axis=-1), rtol=1e-12)


def test_statistics_of_a_gaussian_sample_are_zero_or_one():
    report = noise_statistics(RNG(0).normal(5, 2, 20_000))
    centre = {"mean": 5, "std": 2, "skewness": 0, "excess_kurtosis": 0}
    assert list(report) == list(STATISTICS)
    for name, (value, low, high) in report.items():
        assert low <= value <= high
        assert abs(value - centre.get(name, 1)) < 4 * (high - low) / 2, name


def test_statistics_see_heavy_tails():
    report = noise_statistics(np.abs(stats.t.rvs(2.5, size=5000, random_state=1)))
    assert report["skewness"][1] > 1 and report["excess_kurtosis"][1] > 3
    assert report["upper_tail"][1] > 1.2 and report["far_upper_tail"][1] > report["upper_tail"][2]
    light = noise_statistics(RNG(0).uniform(0, 1, 5000))
    assert light["excess_kurtosis"][2] < -1 and light["upper_tail"][2] < 0.9


def test_statistics_do_not_depend_on_scale_or_shift_and_repeat_themselves():
    norms = RNG(0).exponential(1, 500)
    one, other = noise_statistics(norms), noise_statistics(3 * norms + 7)
    for name in ("skewness", "excess_kurtosis", "upper_tail", "far_upper_tail", "lower_tail"):
        assert np.allclose(one[name], other[name])
    assert noise_statistics(norms) == one


def test_bootstrap_intervals_cover_the_mean():
    rng, hits = RNG(1), 0
    for trial in range(150):
        _, low, high = noise_statistics(rng.normal(1, 1, 60), resamples=200, seed=trial)["mean"]
        hits += low < 1 < high
    assert 0.87 < hits / 150 < 0.99


def test_quantile_plot_is_the_diagonal_for_a_gaussian_and_bends_up_for_heavy_tails():
    plot = quantile_plot(RNG(0).normal(3, 2, 20_000))
    inner = slice(200, -200)
    assert np.abs(plot.theoretical - plot.ordered)[inner].max() < 0.15
    assert np.all(np.diff(plot.ordered) >= 0) and len(plot.theoretical) == 20_000
    heavy = quantile_plot(RNG(0).exponential(1, 2000))
    assert heavy.ordered[-1] > heavy.theoretical[-1] and heavy.ordered[0] > heavy.theoretical[0]


@pytest.mark.parametrize("index", [1.5, 3.0, 8.0])
def test_hill_finds_the_index_of_a_pareto_law(index):
    estimate = hill(stats.pareto.rvs(index, size=20_000, random_state=0))
    assert estimate.k[0] == 10 and estimate.k[-1] == 2000
    assert abs(estimate.index[-1] / index - 1) < 0.1
    many = [hill(sample, [200]) for sample in stats.pareto.rvs(index, size=(300, 2000), random_state=1)]
    hits = np.mean([estimate.low[0] < index < estimate.high[0] for estimate in many])
    assert 0.91 < hits < 0.99


def test_hill_by_its_definition_and_without_a_plateau_for_light_tails():
    norms = RNG(0).uniform(1, 2, 100)
    largest = np.sort(norms)[::-1]
    expected = 7 / np.sum(np.log(largest[:7] / largest[7]))
    assert np.isclose(hill(norms, 7).index[0], expected)
    light = hill(np.abs(RNG(0).normal(0, 1, 20_000)))
    assert light.index[0] > 2 * light.index[-1]


@pytest.mark.parametrize("call, message", [
    (lambda m, t, d: gradient_noise(m, t * np.nan, d), r"theta must be finite.*\(a diverged point\)"),
    (lambda m, t, d: gradient_noise(m, t * 1e30, d, draws=2, batch_size=5), "gradient must be finite"),
    (lambda m, t, d: gradient_noise(m, t, d, draws=0), "draws must be an integer of at least 1, not 0"),
    (lambda m, t, d: gradient_noise(m, t, d, reference=0), "reference must be an integer of at least 1"),
    (lambda m, t, d: gradient_noise(m, t, d, batch_size=-1), "batch size must be an integer of at least 1"),
    (lambda m, t, d: gradient_noise(m, t[1:], d), r"theta must have shape \(36,\)"),
    (lambda m, t, d: noise_statistics([1, 2]), r"norms must have shape \(N,\) with N at least 4, not \(2,\)"),
    (lambda m, t, d: noise_statistics([1, 2, 3, np.inf]), "norms must be finite"),
    (lambda m, t, d: hill(np.arange(30)), "norms must be positive for Hill's estimate.* the smallest is 0"),
    (lambda m, t, d: hill(np.arange(1, 31), [30]), "k must lie between 1 and 29, not 30 to 30"),
    (lambda m, t, d: gaussian_norms([1, np.nan]), "spectrum must be finite"),
    (lambda m, t, d: gaussian_norms([1, -1]), "spectrum must be a vector .* but its smallest is -1"),
    (lambda m, t, d: effective_dimensions([0, 0]), "spectrum must have an entry greater than 0"),
    (lambda m, t, d: effective_dimensions([1, 1j]), "spectrum must hold real numbers, not dtype complex128"),
    (lambda m, t, d: effective_dimensions([]), r"spectrum must be a vector .* not of shape \(0,\)"),
    (lambda m, t, d: noise_statistics([1, 2, 3, 4j]), "norms must hold real numbers, not dtype complex128"),
    (lambda m, t, d: noise_statistics(np.ma.masked_equal([1.0, 2, 3, 4], 4)), "norms: masked arrays are not supported"),
    (lambda m, t, d: noise_statistics([1, 2, 3, 4], level=2), "level must lie strictly between 0 and 1, not 2"),
    (lambda m, t, d: quantile_plot([1, 1j, 2]), "norms must hold real numbers"),
    (lambda m, t, d: hill(np.arange(1, 31) + 0j), "norms must hold real numbers"),
    (lambda m, t, d: hill(np.arange(1, 31), 2.5), "k must be integers between 1 and 29, not array"),
    (lambda m, t, d: hill(np.arange(1, 31), "a"), "k must hold real numbers, not dtype <U1"),
    (lambda m, t, d: hill(np.arange(1, 31), []), "k must be integers between 1 and 29"),
    (lambda m, t, d: gradient_noise(m, t + 0j, d), "theta must hold real numbers, not dtype complex128"),
    (lambda m, t, d: gradient_noise(m, np.ma.masked_less(t, 0), d), "theta: masked arrays are not supported"),
    (lambda m, t, d: gradient_noise(m, t, None),
     "distribution must have draw, as lt.PromptDistribution.. has, not None"),
    (lambda m, t, d: gradient_noise(None, t, d), "model must have size and value_and_gradient, "),
    (lambda m, t, d: gradient_noise(m, t, d, dtype="int32"), "dtype 'int32' is not known; allowed: float32, float64"),
    (lambda m, t, d: gradient_noise(m, t * 1e18, d, draws=2, batch_size=5, dtype="float64", reference=1),
     "the covariance of the noise must be finite.*overflows float64"),
])
def test_what_is_refused(setting, call, message):
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(lt.InputError, match=message):
        call(*setting)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_scale_changes_no_statistic(scale):
    norms = RNG(0).gamma(2, size=200)
    plain, far = noise_statistics(norms), noise_statistics(scale * norms)
    for name in STATISTICS:
        unit = scale if name in ("mean", "std") else 1
        assert np.allclose(np.array(far[name]) / unit, plain[name], rtol=1e-9), name
    spectrum = RNG(0).gamma(1, size=9)
    assert np.isclose(effective_dimensions(scale * spectrum), effective_dimensions(spectrum), rtol=1e-12)
    assert np.allclose(gaussian_norms(scale * spectrum, 50) / np.sqrt(scale), gaussian_norms(spectrum, 50), rtol=1e-9)
    assert np.allclose(hill(scale * norms).index, hill(norms).index, rtol=1e-9)
    ordinary, other = quantile_plot(norms), quantile_plot(scale * norms)
    assert np.allclose(np.array(other) / scale, ordinary, rtol=1e-9)
