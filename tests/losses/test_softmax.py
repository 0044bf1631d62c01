"""The log-softmax that all losses share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import softmax


def log_softmax(logits, temperature=1.0):
  return softmax.log_softmax(jnp.asarray(logits), temperature)[0]


def test_is_jax_log_softmax_on_ordinary_logits():
  logits = np.random.default_rng(0).normal(size=(3, 4, 9)).astype(np.float32)
  weights = np.random.default_rng(1).normal(size=(3, 4, 9))
  np.testing.assert_allclose(
    log_softmax(logits, 1.7), jax.nn.log_softmax(logits / 1.7), rtol=1e-6
  )
  np.testing.assert_allclose(
    jax.grad(lambda x: (weights * log_softmax(x)).sum())(logits),
    jax.grad(lambda x: (weights * jax.nn.log_softmax(x)).sum())(logits),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize(
  ('logits', 'expected'),
  [
    ([0.0, -np.inf], [0.0, -np.inf]),
    ([3e38, -3e38], [0.0, softmax.LOWEST]),
    ([-3e38, -3e38], [-np.log(2), -np.log(2)]),
    ([np.inf, 0.0], [0.0, softmax.LOWEST]),
    ([-np.inf, -np.inf], [-np.inf, -np.inf]),
  ],
)
def test_edges(logits, expected):
  np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-6)
  for temperature in (0.5, 1.0, 2.0):
    grads = jax.grad(
      lambda x, t: jnp.maximum(log_softmax(x, t), -1e30).sum(), (0, 1)
    )(jnp.array(logits), temperature)
    assert np.isfinite(grads[0]).all()
    assert np.isfinite(grads[1])


@pytest.mark.parametrize(
  ('logits', 'expected', 'grad'),
  [
    ([0.0, np.log(3.0), -np.inf], np.log(4.0), [0.25, 0.75, 0.0]),
    ([-np.inf, -np.inf], -np.inf, [0.0, 0.0]),
    ([-3e38, -3e38], -3e38, [0.5, 0.5]),
    ([np.nan, 1.0], np.nan, [0.0, 0.0]),
  ],
)
def test_logsumexp_is_its_formula_at_the_edges_too(logits, expected, grad):
  value, found = jax.value_and_grad(softmax.logsumexp)(jnp.array(logits))
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  np.testing.assert_allclose(found, grad, rtol=1e-6)
