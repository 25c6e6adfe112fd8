"""The Python interface: what is accepted, what is refused and how, what a model says of itself."""

import numpy as np
import pytest
from cases import MODELS, case

import lintransformer as lt
from lintransformer.objective import exact_hessian_vector_product

Z, TARGET = np.zeros((2, 4, 6)), np.zeros(2)


@pytest.mark.parametrize("wrong, message", [
    (lambda: lt.Prompts(np.zeros((2, 4)), TARGET), r"Z must have shape \(B, d\+1, n\+1\).*, not \(2, 4\)"),
    (lambda: lt.Prompts(np.zeros((0, 4, 6)), np.zeros(0)), r"Z must have shape .* not \(0, 4, 6\)"),
    (lambda: lt.Prompts(np.zeros((2, 1, 6)), TARGET), r"Z must have shape .* not \(2, 1, 6\)"),
    (lambda: lt.Prompts(np.zeros((2, 4, 1)), TARGET), r"Z must have shape .* not \(2, 4, 1\)"),
    (lambda: lt.Prompts(Z, np.zeros(3)), r"target must have shape \(2,\), not \(3,\)"),
    (lambda: lt.Prompts(Z, np.zeros((2, 1))), r"target must have shape \(2,\), not \(2, 1\)"),
    (lambda: lt.Prompts(Z.astype(str), TARGET), "Z must hold real or complex numbers, not dtype <U32"),
    (lambda: lt.Prompts(Z > 0, TARGET), "Z must hold real or complex numbers, not dtype bool"),
    (lambda: lt.Prompts([[[1, 2], [3]]], TARGET), "Z must be a rectangular array of numbers.*"),
    (lambda: lt.GramPrompts(np.zeros((2, 4, 3)), np.zeros((2, 4)), TARGET, 5),
     r"G must have shape \(B, d\+1, d\+1\).*, not \(2, 4, 3\)"),
    (lambda: lt.GramPrompts(np.zeros((2, 4, 4)), np.zeros((2, 3)), TARGET, 5),
     r"z must have shape \(2, 4\), not \(2, 3\)"),
    (lambda: lt.GramPrompts(np.zeros((2, 4, 4)), np.zeros((2, 4)), TARGET, 0),
     "context_length must be an integer of at least 1, not 0"),
    (lambda: lt.GramPrompts(np.arange(8.0).reshape(2, 2, 2), np.zeros((2, 2)), TARGET, 5),
     r"G must be symmetric, as Z M Z\^T is; that of prompt 0 is not: 1.0 at \(0, 1\), 2.0 at \(1, 0\)"),
])
def test_batches_that_are_refused(wrong, message):
    with pytest.raises(lt.InputError, match=f"^{message}$"):
        wrong()


@pytest.mark.parametrize("options, message", [
    (dict(layers=0), "layers must be an integer of at least 1, not 0"),
    (dict(layers=2.0), "layers must be an integer of at least 1, not 2.0"),
    (dict(layers=True), "layers must be an integer of at least 1, not True"),
    (dict(dimension=-1), "dimension must be an integer of at least 1, not -1"),
    (dict(heads=0), "heads must be an integer of at least 1, not 0"),
    (dict(embedding=0), "embedding must be an integer of at least 1, not 0"),
    (dict(attention="cosine"), "attention 'cosine' is not known; allowed: linear, softmax, relu"),
    (dict(parametrization="low-rank"), "parametrization 'low-rank' is not known; allowed: full, block, separate"),
    (dict(form="fast"), "form 'fast' is not known; allowed: gram, token"),
    (dict(mask="never"), "mask 'never' is not known; allowed: after, before"),
    (dict(attention="softmax", form="gram"),
     "form 'gram' is for linear attention only; softmax attention allows: token"),
    (dict(attention="relu", form="gram"), "form 'gram' is for linear attention only; relu attention allows: token"),
    (dict(init_scale=-0.1), "init_scale must be a finite number at least 0, not -0.1"),
    (dict(init_scale=float("nan")), "init_scale must be a finite number at least 0, not nan"),
])
def test_models_that_are_refused(options, message):
    with pytest.raises(lt.InputError, match=f"^{message}$"):
        lt.build_model(**options)


MODEL = lt.build_model(layers=2, dimension=3)
TOKENS = lt.PromptDistribution(3, 5).draw(np.random.default_rng(0), 4)


@pytest.mark.parametrize("model, theta, batch, message", [
    (MODEL, np.zeros(7), TOKENS, r"theta must have shape \(36,\) for this model, not \(7,\)"),
    (MODEL, np.zeros((36, 1)), TOKENS, r"theta must have shape \(36,\) for this model, not \(36, 1\)"),
    (MODEL, np.zeros(36, int), TOKENS, "theta must hold floating-point or complex numbers, not dtype int64"),
    (MODEL, np.zeros(36), TOKENS.Z, "batch must be Prompts or GramPrompts, not ndarray"),
    (MODEL, np.zeros(36), lt.PromptDistribution(2, 5).draw(np.random.default_rng(0), 4),
     "batch has dimension 2, but the model has dimension 3"),
    (lt.build_model(2, 3, attention="softmax"), np.zeros(36), TOKENS.gram(),
     r"batch holds Gram statistics \(GramPrompts\), but the token form of attention reads tokens: give Prompts"),
    (lt.build_model(2, 3, embedding=1), np.zeros(46), TOKENS.gram(),
     r"batch holds Gram statistics \(GramPrompts\), but an embedding reads tokens: give Prompts"),
])
def test_evaluations_that_are_refused(model, theta, batch, message):
    with pytest.raises(lt.InputError, match=f"^{message}$"):
        lt.value_and_gradient(model, theta, batch)


@pytest.mark.parametrize("row", MODELS.values(), ids=MODELS.keys())
def test_a_model_describes_every_part_of_theta_once(row):
    model, theta, _ = case(row)
    covered = np.zeros(model.size, int)
    for name, shape, part, meaning in model.named():
        covered[part] += 1
        assert model.unpack(theta)[name].shape == shape and meaning
        assert name in model.describe() and f"{part.start}:{part.stop}" in model.describe()
    assert (covered == 1).all()


def test_theta_is_in_c_order_of_layer_head_part_row_column():
    model = lt.build_model(layers=2, dimension=3, heads=2)
    theta = np.arange(model.size, dtype=float)
    parts = theta.reshape(2, 2, 2, 3, 3)
    views = model.unpack(theta)
    for layer, head in np.ndindex(2, 2):
        assert np.array_equal(views[f"P[{layer},{head}]"], parts[layer, head, 0])
        assert np.array_equal(views[f"Q[{layer},{head}]"], parts[layer, head, 1])
    views["P[1,0]"][0, 0] = -1                                               # views: writing reaches theta
    assert theta[36] == -1


def test_initialisation_has_the_stated_scale_and_dtype():
    model = lt.build_model(8, 20)
    theta = model.init(np.random.default_rng(0), np.float32)
    assert theta.dtype == np.float32 and theta.shape == (6400,)
    assert abs(theta.std() / 0.05 - 1) < 0.05 and abs(theta.mean()) < 0.005


def test_initialisation_follows_its_scale():
    for scale in (0.0, 0.05, 0.7):
        theta = lt.build_model(8, 20, init_scale=scale).init(np.random.default_rng(0))
        assert np.isclose(theta.std(), scale, rtol=0.05)


def test_a_query_with_a_response_of_its_own_is_warned_of():
    Z = TOKENS.Z.copy()
    Z[:, -1, -1] = TOKENS.target
    with pytest.warns(UserWarning, match="the query's own response, is not 0 as in eq. 4"):
        lt.Prompts(Z, TOKENS.target)


def test_prompts_cannot_be_written_into_behind_their_gram_matrix():
    with pytest.raises(ValueError, match="read-only"):
        TOKENS.Z[0, 0, 0] = 1.0


@pytest.mark.parametrize("batch", [TOKENS, TOKENS.gram()], ids=["tokens", "gram"])
def test_parts_of_a_batch_and_other_dtypes_keep_everything_together(batch):
    theta = MODEL.init(np.random.default_rng(1))
    losses = lt.prompt_losses(MODEL, theta, batch)
    assert np.allclose(lt.prompt_losses(MODEL, theta, batch.take([2, 0])), losses[[2, 0]], rtol=1e-12)
    narrow = batch.astype(np.float32)
    assert narrow.dtype == np.float32
    assert lt.prompt_losses(MODEL, theta.astype(np.float32), narrow).dtype == np.float32


def test_directions_of_the_wrong_length_are_refused():
    theta = MODEL.init(np.random.default_rng(1))
    with pytest.raises(lt.InputError, match=r"v must have shape \(36,\) or \(K, 36\), not \(40,\)"):
        exact_hessian_vector_product(MODEL, theta, TOKENS, np.zeros(40))


def test_dtypes_promote_as_numpy_does():
    theta = np.full(36, 0.1, np.float32)
    assert lt.gradient(MODEL, theta, TOKENS.astype(np.float32)).dtype == np.float32
    assert lt.gradient(MODEL, theta, TOKENS).dtype == np.float64
    assert lt.gradient(MODEL, theta.astype(complex), TOKENS).dtype == complex


def test_evaluation_changes_neither_theta_nor_the_batch():
    theta = MODEL.init(np.random.default_rng(1))
    before = theta.copy(), TOKENS.Z.copy(), TOKENS.target.copy()
    lt.value_and_gradient(MODEL, theta, TOKENS)
    assert all(np.array_equal(a, b) for a, b in zip(before, (theta, TOKENS.Z, TOKENS.target)))


def test_importing_the_package_loads_numpy_only(tmp_path):
    import subprocess
    import sys
    heavy = "scipy", "matplotlib", "tqdm", "torch", "jax", "jinja2", "threadpoolctl"
    code = f"import sys, lintransformer; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "[]"


def test_dir_lists_what_loads_later():
    for name in dir(lt):
        getattr(lt, name)
    assert {"hessian", "hessian_vector_product", "lanczos", "dense_spectrum", "spectral_density", "gradient_noise",
            "verification", "build_model", "train", "__version__"} <= set(dir(lt))
    assert dir(lt) == sorted(set(dir(lt)))


@pytest.mark.parametrize("of", ["tokens", "gram"])
def test_a_batch_owns_its_arrays(of):
    """`Z *= 2` after an evaluation once paired the old Gram matrix with the new query."""
    theta = MODEL.init(np.random.default_rng(1)) * 10
    Z, target = TOKENS.Z.copy(), TOKENS.target.copy()
    G, z = TOKENS.gram().G.copy(), TOKENS.gram().z.copy()
    batch = lt.Prompts(Z, target) if of == "tokens" else lt.GramPrompts(G, z, target, 5)
    before = lt.value(MODEL, theta, batch)
    for array in (Z, target, G, z):
        array *= 2
    assert lt.value(MODEL, theta, batch) == before == lt.value(MODEL, theta, batch.take(slice(None)))
    narrow = batch.astype(np.float32)
    for array in (batch.target, batch.gram().G, batch.gram().z, batch.take([0]).target, narrow.target):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


NOT_NUMBERS = {"G": np.array([[1.0, 0.2], [0.2, 1.0]])[None], "z": np.ones((1, 2)), "target": np.ones(1)}


@pytest.mark.parametrize("changes, message", [
    (dict(G=[[[1, 0.2], [np.nan, 1]]]), "G must be finite, but 1 of 4 entries are not; the first is nan at (0, 1, 0)"),
    (dict(G=[[[np.inf, 0.2], [0.3, 1]]]), "G must be finite, but 1 of 4 entries are not; the first is inf at (0, 0,"),
    (dict(G=[[[1, 2], [2, 1]]]), "G must be positive semidefinite, as Z M Z^T is; that of prompt 0 has the eigenvalue"),
    (dict(G=[[[1e-200, 2e-200], [2e-200, 1e-200]]]), "G must be positive semidefinite"),
    (dict(G=[[[1, 1 + 1e-9], [1, 1 + 1e-9]]]), "G must be symmetric"),
    (dict(z=np.ones((1, 3))), "z must have shape (1, 2), not (1, 3)"),
    (dict(target=np.ones(2)), "target must have shape (1,), not (2,)"),
    (dict(context_length=1.5), "context_length must be an integer of at least 1, not 1.5"),
    (dict(G=np.ma.masked_equal(NOT_NUMBERS["G"], 0.2)), "G: masked arrays are not supported: fill or drop"),
    (dict(z=np.ones((1, 2), np.float16)), "z must not be of dtype float16, which ends at 65504; allowed: float32"),
    (dict(z=None), "z must hold numbers, but one entry is None"),
    (dict(target=[object()]), "target must hold numbers, but one entry is <object object at"),
])
def test_gram_statistics_that_no_prompt_has(changes, message):
    lt.GramPrompts(**NOT_NUMBERS, context_length=3)
    with pytest.raises(lt.InputError) as refusal:
        lt.GramPrompts(**{**NOT_NUMBERS, "context_length": 3, **changes})
    assert str(refusal.value).startswith(message) and "\n" not in str(refusal.value)


def test_semidefinite_to_rounding_is_semidefinite():
    """Fewer tokens than dimensions, float32 and far scales: zero eigenvalues come out slightly negative."""
    for dtype in (np.float32, np.float64):
        for scale in (1e-15, 1.0, 1e15):
            Z = (scale * np.random.default_rng(0).standard_normal((50, 9, 3))).astype(dtype)
            G = Z @ np.swapaxes(Z, 1, 2)
            lt.GramPrompts((G + np.swapaxes(G, 1, 2)) / 2, Z[:, :, 0], Z[:, 0, 0], 3)


def test_batches_keep_the_dtypes_they_can_keep():
    with pytest.raises(lt.InputError, match="prompts of dtype complex128 have imaginary parts, which dtype float64"):
        TOKENS.astype(complex).astype(float)
    for wrong in ("int32", "float16", bool, "abc", object()):
        with pytest.raises(lt.InputError, match="is not known; allowed: float32, float64, complex128, object"):
            TOKENS.astype(wrong)
    for wrong in (99, [], [7], 1.5, "a", None, np.zeros(4, bool), 0):
        with pytest.raises(lt.InputError, match="index "):
            TOKENS.take(wrong)
    assert TOKENS.take(np.array([True, False, False, True])).size == 2
