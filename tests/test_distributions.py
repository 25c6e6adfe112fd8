"""What is drawn is what Table 1 says, and drawing Gram statistics directly changes nothing but the cost."""

import numpy as np
import pytest
from scipy import stats

import lintransformer as lt
import lintransformer.random

DRAWS = 20_000
DISTRIBUTIONS = {
    "gaussian": lt.PromptDistribution(3, 7),
    "fewer tokens than dimensions": lt.PromptDistribution(4, 2),
    "one dimension": lt.PromptDistribution(1, 3),
    "covariances": lt.PromptDistribution(2, 5, covariate_covariance=((2.0, 0.5), (0.5, 1.0)),
                                         task_covariance=((1.0, -0.3), (-0.3, 0.5))),
    "spherical": lt.PromptDistribution(3, 5, "spherical"),
    "gamma": lt.PromptDistribution(3, 5, "gamma", gamma_shape=1.5, gamma_scale=2.0),
    "orthogonal": lt.PromptDistribution(3, 5, "orthogonal"),
    "nonlinear": lt.PromptDistribution(3, 5, response=lt.ResponseNetwork(4)),
}
every_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())


def statistics(gram):
    """Scalars that see every entry of the Gram statistics: (name, values (B,))."""
    d = gram.dimension
    S, s, x = gram.G[:, :d, :d], gram.G[:, :d, d], gram.z[:, :d]
    yield "first diagonal entry", S[:, 0, 0]
    yield "last diagonal entry", S[:, -1, -1]
    yield "corner", S[:, 0, -1]
    yield "determinant", np.linalg.det(S) if gram.context_length >= d else np.einsum("bij,bij->b", S, S)
    yield "responses", gram.G[:, d, d]
    yield "covariates and responses", s[:, -1]
    yield "query and context", np.einsum("bi,bij,bj->b", x, S, x)
    yield "target and context", gram.target * np.einsum("bi,bi->b", s, x)


@every_distribution
def test_both_routes_draw_the_same_distribution(distribution):
    direct = distribution.draw_gram(lt.stream(0, "training"), DRAWS)
    tokens = distribution.draw(lt.stream(1, "training"), DRAWS).gram()
    for (name, a), (_, b) in zip(statistics(direct), statistics(tokens)):
        assert stats.ks_2samp(a, b).pvalue > 1e-4, name
        for power in (1, 2):
            error = np.sqrt((np.var(a**power) + np.var(b**power)) / DRAWS)
            assert abs((a**power).mean() - (b**power).mean()) < 5 * error + 1e-12, (name, power)


@every_distribution
def test_gram_statistics_are_those_of_eq_4(distribution):
    batch = distribution.draw(np.random.default_rng(0), 6)
    d, n = distribution.dimension, distribution.context_length
    assert batch.Z.shape == (6, d + 1, n + 1) and not batch.Z[:, d, n].any()
    mask = np.diag([1.0] * n + [0.0])
    gram = batch.gram()
    assert np.allclose(gram.G, batch.Z @ mask @ batch.Z.transpose(0, 2, 1))
    assert np.array_equal(gram.z, batch.Z[:, :, n])


def test_covariates_have_their_laws():
    rng = np.random.default_rng(0)
    gaussian = lt.PromptDistribution(1, 1).draw(rng, DRAWS).Z[:, 0, 0]
    assert stats.kstest(gaussian, "norm").pvalue > 1e-4
    sphere = lt.PromptDistribution(3, 1, "spherical").draw(rng, DRAWS).Z[:, :3, 0]
    assert np.allclose((sphere**2).sum(axis=1), 1)
    assert stats.kstest(sphere[:, 0], stats.uniform(-1, 2).cdf).pvalue > 1e-4    # Archimedes: uniform in d = 3
    gamma = lt.PromptDistribution(5, 1, "gamma", gamma_shape=0.1, gamma_scale=10.0).draw(rng, DRAWS).Z[:, :5, 0]
    radius = (gamma**2).sum(axis=1)
    assert stats.kstest(radius, stats.gamma(0.1, scale=10.0).cdf).pvalue > 1e-4


def test_orthogonal_covariates_are_scaled_axes_drawn_evenly():
    X = lt.PromptDistribution(4, 1, "orthogonal").draw(np.random.default_rng(0), DRAWS).Z[:, :4, 0]
    assert np.array_equal(np.sort(X, axis=1), np.tile([0, 0, 0, 2.0], (DRAWS, 1)))
    assert stats.chisquare(np.count_nonzero(X, axis=0)).pvalue > 1e-4


def test_gamma_with_shape_half_d_and_scale_two_is_gaussian():
    """Claim 15, the exact part: k = 2.5, theta = 2 is N(0, I_5)."""
    gamma = lt.PromptDistribution(5, 1, "gamma", gamma_shape=2.5, gamma_scale=2.0)
    X = gamma.draw(np.random.default_rng(0), DRAWS).Z[:, :5, 0]
    assert all(stats.kstest(X[:, i], "norm").pvalue > 1e-4 for i in range(5))
    assert abs(np.cov(X.T) - np.eye(5)).max() < 0.05


def test_given_covariances_are_those_of_the_draws():
    distribution = DISTRIBUTIONS["covariances"]
    batch = distribution.draw(np.random.default_rng(0), DRAWS)
    covariates = batch.Z[:, :2].transpose(1, 0, 2).reshape(2, -1)
    assert abs(np.cov(covariates) - distribution.covariate_covariance).max() < 0.05
    tasks = np.linalg.solve(batch.Z[:, :2, :2].transpose(0, 2, 1), batch.Z[:, 2, :2, None])[..., 0]   # y = X^T w
    assert abs(np.cov(tasks.T) - distribution.task_covariance).max() < 0.05


def test_nonlinear_responses_go_through_the_network():
    distribution = DISTRIBUTIONS["nonlinear"]
    batch = distribution.draw(np.random.default_rng(0), 6)
    W1, b1, W2, b2 = distribution.response.weights(3)
    assert W1.shape == (4, 3) and abs(W1).max() <= 3**-0.5 and abs(W2).max() <= 4**-0.5
    features = [W2 @ np.maximum(W1 @ x + b1, 0) + b2 for x in batch.Z[0, :3].T]
    design, responses = np.array(features)[:5], batch.Z[0, 3, :5]
    w = np.linalg.lstsq(design, responses, rcond=None)[0]
    assert np.allclose(design @ w, responses) and np.isclose(batch.target[0], features[5] @ w)


@pytest.mark.parametrize("form", ["gram", "tokens"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_distribution
def test_a_sampler_repeats_itself_under_the_same_seed(distribution, dtype, form):
    draws = []
    for _ in range(2):
        sampler, rng = distribution.sampler(3, dtype, form), lt.stream(5, "training")
        sampler.draw(rng)
        batch = sampler.draw(rng).gram()
        draws.append([np.array(part) for part in (batch.G, batch.z, batch.target)])
        assert all(part.dtype == dtype for part in draws[-1])
    assert all(np.array_equal(a, b) for a, b in zip(*draws))


def test_streams_of_different_purpose_or_seed_differ():
    numbers = [lt.stream(seed, purpose).random() for seed in (0, 1) for purpose in ("training", "evaluation")]
    assert len(set(numbers)) == 4


@pytest.mark.parametrize("options, message", [
    (dict(dimension=0), "dimension must be an integer of at least 1, not 0"),
    (dict(context_length=0), "context_length must be an integer of at least 1, not 0"),
    (dict(context_length=2.5), "context_length must be an integer of at least 1, not 2.5"),
    (dict(covariates="cauchy"), "covariates 'cauchy' is not known; allowed: gaussian, spherical, gamma, orthogonal"),
    (dict(gamma_shape=-1.0), "gamma_shape must be a finite number greater than 0, not -1.0"),
    (dict(gamma_scale=float("inf")), "gamma_scale must be a finite number greater than 0, not inf"),
    (dict(dimension=2, covariate_covariance=((1, 0),)), r"covariate_covariance must have shape \(2, 2\), not \(1, 2\)"),
    (dict(dimension=2, task_covariance=((1, 2), (2, 1))), "task_covariance must be symmetric positive definite.*"),
    (dict(dimension=2, task_covariance=((2, 1), (0, 2))), "task_covariance must be symmetric positive definite.*"),
    (dict(dimension=2, task_covariance="abc"), "task_covariance must hold real numbers, not dtype <U3"),
    (dict(response={"hidden": 3}), "response must be ResponseNetwork or NoneType, not dict"),
])
def test_refusals(options, message):
    with pytest.raises(lt.InputError, match=f"^{message}$"):
        lt.PromptDistribution(**options)


@pytest.mark.parametrize("wrong, message", [
    (lambda: lt.ResponseNetwork(0), "response.hidden must be an integer of at least 1, not 0"),
    (lambda: lt.ResponseNetwork(3, -1), "response.seed must be an integer of at least 0, not -1"),
    (lambda: lt.PromptDistribution.from_config({"dim": 2}),
     "a distribution has no option 'dim'; allowed: dimension, .*"),
    (lambda: lt.PromptDistribution().draw(np.random.default_rng(0), 2, "foo"),
     "dtype 'foo' is not known; allowed: float32, float64"),
    (lambda: lt.PromptDistribution().sampler(2, form="scores"),
     "form of the prompts 'scores' is not known; allowed: gram, tokens"),
])
def test_more_refusals(wrong, message):
    with pytest.raises(lt.InputError, match=f"^{message}$"):
        wrong()


def test_distributions_compare_and_hash_by_their_numbers():
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    first = lt.PromptDistribution(np.int64(2), 5, covariate_covariance=covariance)
    covariance[0, 0] = 9                                                     # the distribution has its own copy
    second = lt.PromptDistribution(2, 5, covariate_covariance=[[2, 0.5], [0.5, 1]])
    assert first == second and hash(first) == hash(second) and first.covariate_covariance[0][0] == 2.0


def test_the_response_network_is_fixed_by_its_seed_and_bounded_by_its_fan_in():
    W1, b1, W2, b2 = lt.ResponseNetwork(2000).weights(4)
    assert 0.49 < abs(W1).max() <= 0.5 and 0.49 < abs(b1).max() <= 0.5
    assert 0.0222 < abs(W2).max() <= 2000**-0.5 and abs(b2).max() <= 2000**-0.5
    same, other = lt.ResponseNetwork(2000).weights(4), lt.ResponseNetwork(2000, seed=1).weights(4)
    assert np.array_equal(W1, same[0]) and not np.array_equal(W1, other[0])


def test_gram_statistics_through_tokens_are_those_of_the_tokens():
    """Where no direct draw exists, both routes are the same numbers, in float64 to the last bit."""
    for name in ("spherical", "gamma", "nonlinear"):
        gram = DISTRIBUTIONS[name].draw_gram(lt.stream(0, "training"), 7)
        tokens = DISTRIBUTIONS[name].draw(lt.stream(0, "training"), 7).gram()
        assert np.array_equal(gram.G, tokens.G) and np.array_equal(gram.z, tokens.z)
        assert np.array_equal(gram.target, tokens.target)


def test_streams_are_what_stored_results_rest_on():
    """Golden numbers: a purpose that moved in the list, or another generator, would orphan every stored run."""
    numbers = {purpose: lt.stream(3, purpose).integers(10**6) for purpose in lt.random.PURPOSES}
    assert numbers == {"initialisation": 797166, "training": 902748, "evaluation": 593610, "noise": 444274,
                       "noise reference": 912621, "response": 36248, "probe": 900375}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bit", [0, 1])
def test_directions_exist_whatever_the_bits(dtype, bit):
    """A uniform of exactly 0 or 1 would make a normal infinite or 0, and a direction 0 / 0; there is none."""

    class Stuck:
        bit_generator = None

        def integers(self, low, high, count, kind, endpoint):
            return np.full(count, bit * high, kind)

    normals, = lt.random.NormalBuffer([(5,)], np.dtype(dtype)).fill(Stuck())
    assert np.isfinite(normals).all() and (normals != 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_bit_generator_gives_normals(dtype, monkeypatch):
    """MT19937 makes half words: taken for whole ones, every other float32 uniform would be the same."""
    rng = np.random.Generator(np.random.MT19937(0))
    for numbers in lt.random.NormalBuffer([(DRAWS,), (DRAWS + 1,)], np.dtype(dtype)).fill(rng):
        assert stats.kstest(numbers.astype(float), "norm").pvalue > 1e-4
    fills = []
    for known in (lt.random.MAKE_WORDS, ()):                                 # both ways to the words give the same
        monkeypatch.setattr(lt.random, "MAKE_WORDS", known)
        fills.append(lt.random.NormalBuffer([(DRAWS,)], np.dtype(dtype)).fill(lt.stream(0, "training"))[0])
    assert np.array_equal(*fills)


def test_normals_reach_into_their_tails():
    """As many beyond 4 standard deviations as there should be, in float32 as well, whose uniforms are coarse."""
    normals, = lt.random.NormalBuffer([(4_000_000,)], np.dtype("float32")).fill(lt.stream(0, "training"))
    for bound in (3, 4, 4.5):
        expected = 2 * stats.norm.sf(bound) * normals.size
        assert abs(np.count_nonzero(abs(normals) > bound) - expected) < 5 * np.sqrt(expected)


def test_a_sampler_never_shows_the_gram_matrix_of_an_earlier_draw():
    sampler, rng = DISTRIBUTIONS["gamma"].sampler(3, form="tokens"), lt.stream(0, "training")
    sampler.draw(rng).gram()
    batch = sampler.draw(rng)
    assert np.array_equal(batch.gram().G, lt.Prompts(batch.Z.copy(), batch.target.copy()).gram().G)


@pytest.mark.parametrize("form", ["gram", "tokens"])
def test_the_query_has_the_covariance_of_the_context(form):
    """By both routes; the direct one draws the query by itself."""
    distribution = DISTRIBUTIONS["covariances"]
    batch = distribution.sampler(DRAWS, form=form).draw(lt.stream(0, "training")).gram()
    query = batch.z[:, :2]
    assert abs(np.cov(query.T) - distribution.covariate_covariance).max() < 0.1
    expected = np.trace(np.array(distribution.covariate_covariance) @ distribution.task_covariance)
    assert abs((batch.target**2).mean() / expected - 1) < 0.1                # E (w.x)^2


@pytest.mark.parametrize("covariance, message", [
    ([[True, False], [False, True]], "must hold real numbers, not dtype bool"),
    ([["1", "0"], ["0", "1"]], "must hold real numbers, not dtype <U1"),
    (np.eye(2) + 0j, "must hold real numbers, not dtype complex128"),
    (np.ma.masked_equal(np.eye(2), 0), "masked arrays are not supported"),
    ([[1, 0], [np.nan, 1]], "must be finite"), ([[2e-9, 1e-9], [0, 2e-9]], "must be symmetric positive definite"),
])
def test_covariances_are_real_numbers(covariance, message):
    for name in ("covariate_covariance", "task_covariance"):
        with pytest.raises(lt.InputError, match=f"^{name}.*{message}"):
            lt.PromptDistribution(2, 5, **{name: covariance})
