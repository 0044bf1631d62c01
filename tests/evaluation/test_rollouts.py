"""Samples of a pair: whose they are, and that batches don't choose them."""

import jax
import numpy as np
import pytest

from kdjax import sampling
from tests.evaluation.test_exposure import batches, pair


def tokens(role, size, count=6, samples=2, **changes):
  """The samples [N, n, T] of one role."""
  found = []
  for batch, valid in batches(size, count):
    drawn = pair(**changes).draw(role, batch, samples)
    found.append(np.stack([d.response.tokens for d in drawn], 1)[:valid])
  return np.concatenate(found)


@pytest.mark.slow
@pytest.mark.parametrize('role', ['student', 'teacher'])
def test_samples_are_the_role_s_own(role):
  given = pair()
  ((batch, _),) = batches(6, 6)
  expected = sampling.generate(
    getattr(given, role),
    getattr(given, f'{role}_params'),
    batch.prompt,
    jax.random.fold_in(jax.random.key(0), 1),
    max_new_tokens=given.max_new_tokens,
    row_ids=batch.example_id,
  )
  np.testing.assert_array_equal(tokens(role, 6)[:, 1], expected.tokens)


@pytest.mark.slow
def test_neither_batches_nor_more_samples_change_a_sample():
  whole = tokens('student', 6)
  np.testing.assert_array_equal(tokens('student', 4), whole)
  more = tokens('student', 6, samples=3)
  np.testing.assert_array_equal(more[:, :2], whole)
  assert (more[:, 2] != whole[:, 0]).any()
  assert (tokens('student', 6, seed=1) != whole).any()
