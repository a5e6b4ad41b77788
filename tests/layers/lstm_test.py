"""Compare the BiLSTM with NumPy and PyTorch, and packed rows with single examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.layers import lstm
from research.layers.lstm import BiLstm
from research.layers.precision import Precision

D, H = 6, 5
LENGTHS = (4, 1, 7)  # of the examples in one row, followed by two padding tokens
X = np.random.RandomState(0).normal(size=(2, 14, D)).astype(np.float32)
SEGMENTS = np.array([np.repeat([1, 2, 3, 0], (*LENGTHS, 2)), np.repeat([1, 2, 0], (6, 6, 2))], np.int32)


def make(seed=0, precision="float32"):
    """Return the layer and random parameters, with nonzero biases."""
    layer = BiLstm(H, Precision(precision))
    params = layer.init(jax.random.key(seed), jnp.asarray(X), jnp.asarray(SEGMENTS))["params"]
    random = np.random.RandomState(seed)
    return layer, jax.tree.map(lambda leaf: jnp.asarray(random.normal(0, 0.5, leaf.shape), jnp.float32), params)


def apply(params, x=X, segments=SEGMENTS, precision="float32"):
    layer = BiLstm(H, Precision(precision))
    return np.asarray(jax.jit(lambda p, x, s: layer.apply({"params": p}, x, s))(params, x, segments))


def by_numpy(params, x, gates="ifgo"):
    """Compute the states of both directions for one example [n, D] in NumPy: [n, 2 * H]."""
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    by_direction = []
    for direction, order in enumerate((1, -1)):
        columns = slice(direction * 4 * H, (direction + 1) * 4 * H)
        W, b = (np.asarray(params["input"][name], np.float64)[..., columns] for name in ("kernel", "bias"))
        U, h, c, states = np.asarray(params["recurrent"], np.float64)[direction], np.zeros(H), np.zeros(H), []
        for token in x[::order]:
            z = dict(zip(gates, np.split(token @ W + h @ U + b, 4), strict=True))
            c = sigmoid(z["f"]) * c + sigmoid(z["i"]) * np.tanh(z["g"])
            h = sigmoid(z["o"]) * np.tanh(c)
            states.append(h)
        by_direction.append(np.stack(states[::order]))
    return np.concatenate(by_direction, axis=-1)


def test_states_follow_the_equations_and_are_zero_in_padding():
    _, params = make()
    actual = apply(params)
    for row, count in ((0, 3), (1, 2)):
        for number in range(1, count + 1):
            here = SEGMENTS[row] == number
            np.testing.assert_allclose(actual[row, here], by_numpy(params, X[row, here]), atol=1e-5)
            assert np.abs(actual[row, here] - by_numpy(params, X[row, here], gates="figo")).max() > 0.05
    assert np.all(actual[SEGMENTS == 0] == 0.0)


def test_packed_examples_have_the_states_of_single_examples():
    _, params = make()
    actual, leaking = apply(params), apply(params, segments=np.minimum(SEGMENTS, 1))
    for number in (1, 2, 3):
        here = SEGMENTS[0] == number
        x = X[:1, here]
        alone = apply(params, x, np.ones(x.shape[:2], np.int32))[0]
        np.testing.assert_allclose(actual[0, here], alone, atol=1e-6)
        assert np.abs(leaking[0, here] - alone).max() > 0.01


def test_changing_an_example_or_padding_changes_no_bit_of_other_examples():
    _, params = make()
    for number in (0, 2):
        changed = np.where((SEGMENTS == number)[..., None], X + 1.0, X)
        before, after, elsewhere = apply(params), apply(params, changed), (SEGMENTS != number) & (SEGMENTS > 0)
        assert np.array_equal(before[elsewhere], after[elsewhere])
        assert np.array_equal(before, after) == (number == 0)


def test_no_gradient_crosses_segments_or_reaches_padding():
    layer, params = make()

    def first(x):
        return (layer.apply({"params": params}, x, SEGMENTS)[0] * jnp.asarray(SEGMENTS[0] == 1)[:, None]).sum()

    grad = np.asarray(jax.jit(jax.grad(first))(jnp.asarray(X)))
    assert np.all(np.abs(grad[0, SEGMENTS[0] == 1]).max(-1) > 1e-4)
    assert np.all(grad[0, SEGMENTS[0] != 1] == 0.0) and np.all(grad[1] == 0.0)


def test_the_gradient_of_every_parameter_matches_finite_differences():
    layer, params = make()
    loss = jax.jit(lambda p: (layer.apply({"params": p}, X, SEGMENTS) ** 2).sum())
    random, step = np.random.RandomState(1), 1e-2
    for path, grad in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        direction = random.normal(size=grad.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        ahead, behind = (
            loss(jax.tree_util.tree_map_with_path(lambda p, x: x + by * direction if p == path else x, params))  # noqa: B023
            for by in (step, -step)
        )
        assert float((grad * direction).sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=5e-3, abs=5e-3), path


def test_initial_forget_biases_are_one_and_recurrent_kernels_are_orthogonal():
    size = 16
    params = BiLstm(size).init(jax.random.key(0), jnp.zeros((1, 3, D)), jnp.ones((1, 3), jnp.int32))["params"]
    bias = np.asarray(params["input"]["bias"]).reshape(2, 4, size)
    assert np.all(bias[:, 1] == 1.0) and np.all(bias[:, [0, 2, 3]] == 0.0)
    blocks = np.asarray(params["recurrent"]).reshape(2, size, 4, size).transpose(0, 2, 1, 3).reshape(8, size, size)
    for number, block in enumerate(blocks):
        np.testing.assert_allclose(block @ block.T, np.eye(size), atol=1e-5)
        assert all(np.abs(block - other).max() > 0.1 for other in blocks[:number])
    assert params["input"]["kernel"].std() == pytest.approx(D**-0.5, rel=0.15)


def test_the_recurrence_is_the_q_of_a_gaussian_matrix_whose_r_has_a_positive_diagonal():
    """Check the distribution: this Q is uniform over the orthogonal matrices."""
    size = 48
    key = jax.random.key(3)
    blocks = np.asarray(lstm._orthogonal(key, (2, size, 4 * size))).reshape(2, size, 4, size).transpose(0, 2, 1, 3).reshape(8, size, size)
    for block, block_key in zip(blocks, jax.random.split(key, 8), strict=True):
        q, r = np.linalg.qr(np.asarray(jax.random.normal(block_key, (size, size)), np.float64))
        np.testing.assert_allclose(block, q * np.sign(np.diag(r)), atol=1e-4)
        np.testing.assert_allclose(block.T @ block, np.eye(size), atol=2e-6)
    np.testing.assert_allclose(np.abs(lstm._orthogonal(key, (2, 1, 4))), 1.0)


def test_no_program_that_draws_parameters_calls_lapack():
    """Check for LAPACK calls: on a CPU with one device, two batched decompositions in one program can deadlock."""
    text = jax.jit(lambda key: BiLstm(H).init(key, jnp.asarray(X), jnp.asarray(SEGMENTS))).lower(jax.random.key(0)).as_text()
    assert "custom_call" not in text and "while" in text
    assert "lapack" in jax.jit(jax.vmap(jnp.linalg.qr)).lower(jnp.ones((2, 3, 3))).as_text()


def test_bfloat16_is_near_float32_but_not_equal():
    _, params = make()
    exact, near = apply(params), apply(params, precision="bfloat16")
    assert near.dtype == np.float32 and 1e-5 < np.abs(exact - near).max() < 0.05


@pytest.mark.torch
def test_states_and_gradients_match_pytorch():
    import torch

    torch.set_num_threads(1)
    layer, params = make()
    torch_lstm = torch.nn.LSTM(D, H, bidirectional=True, batch_first=True)
    kernel, bias = (np.split(np.asarray(params["input"][name]), 2, axis=-1) for name in ("kernel", "bias"))
    with torch.no_grad():
        for direction, suffix in enumerate(("l0", "l0_reverse")):
            getattr(torch_lstm, f"weight_ih_{suffix}").copy_(torch.tensor(kernel[direction].T))
            getattr(torch_lstm, f"weight_hh_{suffix}").copy_(torch.tensor(np.asarray(params["recurrent"])[direction].T))
            getattr(torch_lstm, f"bias_ih_{suffix}").copy_(torch.tensor(bias[direction]))
            getattr(torch_lstm, f"bias_hh_{suffix}").zero_()
    x, one_segment = torch.tensor(X, requires_grad=True), np.ones_like(SEGMENTS)
    expected, _ = torch_lstm(x)
    np.testing.assert_allclose(apply(params, segments=one_segment), expected.detach().numpy(), atol=1e-5)
    (expected**2).sum().backward()
    grads, grad_x = jax.grad(lambda p, x: (layer.apply({"params": p}, x, one_segment) ** 2).sum(), argnums=(0, 1))(params, jnp.asarray(X))
    np.testing.assert_allclose(grad_x, x.grad.numpy(), atol=1e-4)
    np.testing.assert_allclose(grads["recurrent"][1], torch_lstm.weight_hh_l0_reverse.grad.numpy().T, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(grads["input"]["kernel"][:, : 4 * H], torch_lstm.weight_ih_l0.grad.numpy().T, atol=1e-4, rtol=1e-4)
    swapped = {**params, "recurrent": params["recurrent"][::-1]}
    assert np.abs(apply(params, segments=one_segment) - apply(swapped, segments=one_segment)).max() > 0.01
