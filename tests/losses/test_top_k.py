"""The likeliest tokens of logits, and what they leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.losses import sparse
from tests.losses import twins


def test_top_k_has_the_mass_of_all():
  teacher = np.random.default_rng(0).normal(size=(3, 4, 50))
  mass = np.exp(teacher) / np.exp(teacher).sum(-1, keepdims=True)
  p = -np.sort(-mass, axis=-1)
  for k in (1, 7, 50):
    found = losses.top_k(jnp.asarray(teacher), k)
    assert found.ids.dtype == jnp.int32
    np.testing.assert_allclose(np.exp(found.logprobs), p[..., :k], rtol=1e-5)
    chosen = np.take_along_axis(mass, np.asarray(found.ids), -1)
    np.testing.assert_array_equal(chosen, p[..., :k])
    np.testing.assert_allclose(
      np.exp(found.tail), p[..., k:].sum(-1), rtol=1e-5
    )


def test_a_small_tail_has_all_its_digits():
  teacher = jnp.array([0.0, -30.0, -31.0, -np.inf])
  found = losses.top_k(teacher, 1)
  expected = np.logaddexp(-30.0, -31.0)  # 1 - 1 is 0 in float32
  np.testing.assert_allclose(found.tail, expected, rtol=1e-6)
  assert losses.top_k(teacher, 3).tail == -np.inf
  student = jnp.array([0.0, -40.0, -40.0, -40.0])
  others = -40 + np.log(3)
  outcomes, _ = sparse.coarsen(student, found)
  np.testing.assert_allclose(outcomes[1], others, rtol=1e-6)


def test_ties_and_nan_and_what_has_no_k():
  logits = jnp.array([[1.0, 2.0, 2.0, 0.0], [0.0, np.nan, 1.0, 2.0]])
  found = losses.top_k(logits, 2)
  np.testing.assert_array_equal(found.ids[0], [1, 2])
  assert np.all(np.isfinite(found.logprobs[0])) and np.isfinite(found.tail[0])
  assert np.all(np.isnan(found.logprobs[1])) and np.isnan(found.tail[1])
  for k in (0, 5):
    with pytest.raises(ValueError, match=f'k={k}: expected 1 to'):
      losses.top_k(logits, k)


def test_chunked_top_k_is_top_k_of_all_logits():
  inputs, (hidden, head) = twins.known_problem(3)
  known, mask = inputs['teacher_hidden'], inputs['mask']
  found = losses.chunked_top_k(hidden, head, 3, mask=mask, chunk_size=4)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(known)):
    assert a.dtype == b.dtype and a.shape == b.shape
    kept = np.asarray(mask).reshape(*mask.shape, *[1] * (a.ndim - 2))
    np.testing.assert_allclose(a, np.where(kept, b, 0), rtol=1e-5, atol=1e-6)
  whole = losses.chunked_top_k(hidden, head, 3)
  np.testing.assert_array_equal(whole.ids, known.ids)
