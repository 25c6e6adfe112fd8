"""One object, eight threads: every number is the one a single thread gets, to the last bit."""

import copy
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import lintransformer as lt

THREADS, PRODUCTS = 8, 1000
MODELS = {"gram": dict(), "token": dict(attention="softmax"), "embedding": dict(embedding=3)}


def setting(options, size=12):
    model = lt.build_model(2, 3, **{"init_scale": 0.3, **options})
    rng = np.random.default_rng(0)
    return model, model.init(rng), lt.PromptDistribution(3, 5).draw(rng, size), rng


def by_threads(function, arguments):
    """function of every argument, by eight threads that start together."""
    together = threading.Barrier(THREADS)

    def work(mine):
        together.wait()
        return [function(argument) for argument in mine]

    with ThreadPoolExecutor(THREADS) as pool:
        parts = [arguments[i::THREADS] for i in range(THREADS)]
        results = list(pool.map(work, parts))
    return [results[i % THREADS][i // THREADS] for i in range(len(arguments))]


@pytest.mark.parametrize("method", ["difference", "complex", "exact"])
def test_one_operator_serves_eight_threads(method):
    model, theta, batch, rng = setting({})
    H, vectors = lt.hessian(model, theta, batch, method), list(rng.standard_normal((PRODUCTS, model.size)))
    alone = [H @ v for v in vectors]
    assert H.products == PRODUCTS
    assert all(map(np.array_equal, by_threads(lambda v: H @ v, vectors), alone))
    assert H.products == 2 * PRODUCTS
    by_threads(lambda V: H @ V, [rng.standard_normal((model.size, 3)) for _ in range(40)])
    assert H.products == 2 * PRODUCTS + 120


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_one_workspace_serves_eight_threads(options):
    """With a chunk that leaves a remainder, so that each thread needs kernels of two sizes."""
    model, _, batch, rng = setting(options)
    workspace = lt.Workspace(model, 12, chunk=5)
    points = [0.3 * rng.standard_normal(model.size) for _ in range(PRODUCTS)]
    alone = [(*workspace.value_and_gradient(theta, batch), workspace.prompt_losses(theta, batch)) for theta in points]
    together = by_threads(lambda theta: (*workspace.value_and_gradient(theta, batch),
                                         workspace.prompt_losses(theta, batch)), points)
    assert all(a[0] == b[0] and np.array_equal(a[1], b[1]) and np.array_equal(a[2], b[2])
               for a, b in zip(alone, together))


def test_the_gram_matrix_of_one_batch_is_asked_for_by_eight_threads():
    batch = setting({}, 2000)[2]
    expected = lt.Prompts(batch.Z, batch.target).gram().G
    assert all(np.array_equal(G, expected) for G in by_threads(lambda _: batch.gram().G, [None] * 16))


def products_elsewhere(H, v):
    return H @ v


@pytest.mark.parametrize("method", ["difference", "exact"])
def test_operators_workspaces_and_batches_are_copied_and_sent_to_processes(method):
    model, theta, batch, rng = setting({})
    H, workspace, v = lt.hessian(model, theta, batch, method), lt.Workspace(model, 12), rng.standard_normal(model.size)
    expected, value = H @ v, workspace.value_and_gradient(theta, batch)[0]
    for again in (pickle.loads(pickle.dumps(H)), copy.copy(H), copy.deepcopy(H)):
        assert again.method == method and again.products == 0 and np.array_equal(again @ v, expected)
    for again in (pickle.loads(pickle.dumps(workspace)), copy.copy(workspace), copy.deepcopy(workspace)):
        assert again.value_and_gradient(theta, batch)[0] == value
    for same in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch.gram()))):
        assert np.isclose(lt.value(model, theta, same), lt.value(model, theta, batch), rtol=1e-14)    # another layout
        assert not same.target.flags.writeable
    with ProcessPoolExecutor(1) as pool:
        assert np.array_equal(pool.submit(products_elsewhere, H, v).result(), expected)
