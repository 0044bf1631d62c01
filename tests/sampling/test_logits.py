import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import testing
from kdjax.sampling import logits as logits_lib


def random_logits(seed, ties=False):
  logits = np.random.default_rng(seed).normal(size=(64, 11)) * 2
  return np.float32(np.round(logits) if ties else logits)


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize(
  'top_k, top_p, min_p',
  [
    (0, 1.0, 0.0),
    (1, 1.0, 0.0),
    (3, 1.0, 0.0),
    (50, 1.0, 0.0),
    (0, 0.9, 0.0),
    (0, 0.5, 0.0),
    (0, 0.03, 0.0),
    (0, 1.0, 0.3),
    (0, 1.0, 1.0),
    (3, 0.9, 0.3),
    (6, 0.5, 0.1),
  ],
)
def test_keeps_what_transformers_keeps(ties, top_k, top_p, min_p):
  torch = pytest.importorskip('torch')
  warpers = pytest.importorskip('transformers').generation.logits_process
  logits = random_logits(0, ties)
  expected = torch.tensor(logits) / 0.7
  if top_k:
    expected = warpers.TopKLogitsWarper(top_k)(None, expected)
  if top_p < 1:
    expected = warpers.TopPLogitsWarper(top_p)(None, expected)
  expected = warpers.MinPLogitsWarper(min_p)(None, expected)
  kept = logits_lib.truncate(
    jnp.array(logits) / 0.7, top_k=top_k, top_p=top_p, min_p=min_p
  )
  np.testing.assert_allclose(kept, expected.numpy(), rtol=1e-6)


def test_top_p_after_forbidden_tokens():
  logits = jnp.array([[-jnp.inf, 0.0, -jnp.inf, 2.0, 1.0]])
  kept = logits_lib.keep_top_p(logits, 0.8)
  np.testing.assert_array_equal(
    kept > -jnp.inf, [[False, False, False, True, True]]
  )


def test_filters_agree_under_jit_and_vmap():
  testing.assert_transforms_agree(
    lambda x: jax.nn.softmax(
      logits_lib.truncate(x, top_k=7, top_p=0.9, min_p=0.05)
    ),
    jnp.array(random_logits(1)),
  )


@pytest.mark.parametrize('vocab_size', [1, 5, 16, 37])
def test_sample_inverts_the_distribution(vocab_size):
  # On an even n x n grid of both numbers the frequency of every token is off
  # by under one step of either, 2 / n in all.
  n = 400
  grid = (jnp.arange(n) + 0.5) / n
  uniforms = jnp.stack(jnp.meshgrid(grid, grid), -1).reshape(-1, 2)
  logits = 2 * jax.random.normal(jax.random.key(0), (vocab_size,))
  logits = logits.at[vocab_size // 3].set(-jnp.inf if vocab_size > 1 else 0)
  token, logprob = logits_lib.sample(
    jnp.broadcast_to(logits, (n * n, vocab_size)), uniforms
  )
  counts = np.bincount(token, minlength=vocab_size)
  exact = jax.nn.log_softmax(logits)
  np.testing.assert_allclose(counts / n**2, jnp.exp(exact), atol=2 / n)
  np.testing.assert_allclose(logprob, exact[token], rtol=1e-5, atol=1e-6)


def test_sample_agrees_under_jit_and_vmap():
  uniforms = jax.random.uniform(jax.random.key(0), (64, 2))
  testing.assert_transforms_agree(
    logits_lib.sample, jnp.array(random_logits(2)), uniforms
  )


def test_never_samples_probability_zero():
  logits = jax.random.normal(jax.random.key(0), (1000, 300))
  open_ids = jax.random.bernoulli(jax.random.key(1), 0.05, logits.shape)
  open_ids = open_ids.at[:, 150].set(True)
  logits = jnp.where(open_ids, logits, -jnp.inf)
  for low, high in ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.999999, 1e-9)):
    uniforms = jnp.broadcast_to(jnp.array([low, high]), (1000, 2))
    token, logprob = logits_lib.sample(logits, uniforms)
    assert jnp.take_along_axis(open_ids, token[:, None], 1).all()
    assert jnp.isfinite(logprob).all()


def test_sample_survives_extreme_logits():
  logits = jnp.array([[-1e30, 3e4, 3e4 - 1, -jnp.inf, -200.0]])
  token, logprob = logits_lib.sample(logits, jnp.array([[0.5, 0.5]]))
  assert token.tolist() == [1]
  np.testing.assert_allclose(logprob, [-np.log1p(np.exp(-1))], rtol=1e-5)


def test_sample_keeps_tiny_probabilities():
  # A million tokens of 1e-6 each: one float32 sum over them loses digits, and
  # 2^23 numbers would hit each token 8 or 9 times. Two numbers do neither.
  logits = jnp.zeros((1, 2**20))
  token, _ = logits_lib.sample(logits, jnp.array([[0.75, 0.25]]))
  assert token.tolist() == [2**20 * 3 // 4 + 256]


def test_logits_that_are_nan_stay_in_the_vocabulary():
  token, _ = logits_lib.sample(jnp.full((1, 5), jnp.nan), jnp.full((1, 2), 0.5))
  assert 0 <= token[0] < 5
