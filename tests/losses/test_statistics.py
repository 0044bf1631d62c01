"""Token statistics against their formulas in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, types

INF = np.inf
N, D, V = 10, 4, 6
NAMES = [field.name for field in dataclasses.fields(losses.TokenStatistics)]


def problem():
  rng = np.random.default_rng(0)
  hidden, kernel = rng.normal(size=(N, D)), rng.normal(size=(D, V))
  labels = rng.integers(0, V, N)
  return jnp.asarray(hidden), jnp.asarray(kernel), jnp.asarray(labels)


def formulas(logits, labels):
  """The definitions, one row at a time."""
  found = {name: [] for name in NAMES}
  for row, label in zip(np.asarray(logits, np.float64), labels):
    present = row[row > -np.inf]
    mass = np.exp(present - present.max())
    total = present.max() + np.log(mass.sum())
    probabilities = mass / mass.sum()
    found['label_logprobs'].append(row[label] - total)
    found['log_sum_exp'].append(total)
    found['max'].append(present.max())
    found['mean'].append(present.mean())
    found['entropy'].append(-(probabilities * np.log(probabilities)).sum())
  return found


@jax.jit
def statistics(hidden, head, labels, mask=None):
  return losses.token_statistics(hidden, head, labels, mask=mask, chunk_size=4)


@pytest.mark.parametrize('missing', [False, True])
def test_formulas(missing):
  hidden, kernel, labels = problem()
  bias = jnp.zeros(V).at[2].set(-jnp.inf if missing else 1.0)
  head = types.Head(kernel, bias)
  found = statistics(hidden, head, labels)
  expected = formulas(head.logits(hidden), labels)
  assert 2 in labels, 'a label without mass'
  for name in NAMES:
    value = getattr(found, name)
    assert value.dtype == jnp.float32
    # 1e-5 is some 100 roundings of numbers near 1.
    np.testing.assert_allclose(
      value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name
    )


def test_the_mean_under_the_softmax():
  hidden, kernel, labels = problem()
  found = statistics(hidden, types.Head(kernel), labels)
  logits = hidden @ kernel
  mean = (jax.nn.softmax(logits) * logits).sum(-1)
  np.testing.assert_allclose(
    found.log_sum_exp - found.entropy, mean, rtol=1e-5, atol=1e-5
  )


# Logits: their log-sum-exp, maximum, mean and entropy.
EDGES = {
  'one missing': ([0, 0, -INF], [np.log(2), 0, 0, np.log(2)]),
  'one left': ([-INF, 5, -INF], [5, 5, 5, 0]),
  'none': ([-INF, -INF, -INF], [-INF, -INF, 0, 0]),
  'large': ([-3e38, -3e38, 0], [0, 0, -2e38, 0]),
  'NaN': ([np.nan, 0, 0], [np.nan] * 4),
}


@pytest.mark.parametrize(('logits', 'expected'), EDGES.values(), ids=EDGES)
def test_edges(logits, expected):
  head = types.Head(jnp.zeros((D, 3)), jnp.array(logits, jnp.float32))
  found = statistics(jnp.zeros((1, D)), head, jnp.array([1]))
  for name, value in zip(NAMES[1:], expected):
    np.testing.assert_allclose(
      getattr(found, name)[0], value, rtol=1e-6, err_msg=name
    )


def test_masked_tokens_are_0_and_others_are_those_of_all():
  hidden, kernel, labels = problem()
  mask = jnp.arange(N) % 3 > 0
  head = types.Head(kernel)
  whole = statistics(hidden, head, labels)
  evil = jnp.where(mask[:, None], hidden, jnp.nan)
  found = statistics(evil, head, jnp.where(mask, labels, -100), mask)
  jax.tree.map(
    np.testing.assert_array_equal,
    found,
    jax.tree.map(lambda x: jnp.where(mask, x, 0.0), whole),
  )


def test_labels_of_no_token_have_no_mass():
  hidden, kernel, labels = problem()
  found = statistics(hidden, types.Head(kernel), labels.at[3].set(V))
  assert found.label_logprobs[3] == -jnp.inf
  assert np.isfinite(found.label_logprobs).sum() == N - 1


def test_no_gradient_passes():
  hidden, kernel, labels = problem()

  @jax.jit
  @jax.value_and_grad
  def total(floats):
    hidden, head = floats
    leaves = jax.tree.leaves(statistics(hidden, head, labels))
    return sum(x.sum() for x in leaves)

  value, grads = total((hidden, types.Head(kernel)))
  assert np.isfinite(value) and value != 0
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, 0)


def test_any_leading_shape():
  hidden, kernel, labels = problem()
  flat = statistics(hidden, types.Head(kernel), labels)
  folded = statistics(
    hidden.reshape(2, 5, D), types.Head(kernel), labels.reshape(2, 5)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a, b.reshape(2, 5)),
    folded,
    flat,
  )


def test_bad_arguments_are_named():
  hidden, kernel, labels = problem()
  with pytest.raises(ValueError, match=r'labels of shape \(9,\).*\(10,\)'):
    statistics(hidden, types.Head(kernel), labels[1:])
  with pytest.raises(ValueError, match=r'mask of shape \(9,\).*\(10,\)'):
    statistics(hidden, types.Head(kernel), labels, labels[1:] > 0)
  with pytest.raises(TypeError, match='labels must be integers, got float32'):
    statistics(hidden, types.Head(kernel), labels.astype(jnp.float32))
