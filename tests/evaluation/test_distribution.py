"""Divergences between models equal sums by hand, whatever the padding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import types
from kdjax.evaluation import distribution


@dataclasses.dataclass(frozen=True)
class Bigram:
  """Logits are a row of the parameters [V, V], chosen by the token before."""

  vocab_size: int
  num_tokens: int

  def hidden_states(self, params, prompt, response_tokens):
    del params
    before = jnp.concatenate(
      [prompt.tokens[:, -1:], response_tokens[:, :-1]], axis=1
    )
    return jax.nn.one_hot(before, self.vocab_size)

  def output_head(self, params):
    return types.Head(jnp.asarray(params))


def _table(seed, rows, columns):
  return np.random.default_rng(seed).normal(size=(rows, columns))


def _inputs():
  prompt = types.Prompt(np.array([[1, 2], [0, 3]]), np.ones((2, 2), bool))
  response = types.Response(
    np.array([[0, 4, 1], [2, 0, 0]]),
    np.array([[True, True, True], [True, False, False]]),
  )
  return prompt, response


def _by_hand(student, teacher, before):
  """Forward and reverse KL summed over the rows that `before` names."""
  forward = reverse = 0.0
  for row in before:
    p = np.exp(teacher[row]) / np.exp(teacher[row]).sum()
    q = np.exp(student[row]) / np.exp(student[row]).sum()
    forward += (p * np.log(p / q)).sum()
    reverse += (q * np.log(q / p)).sum()
  return forward, reverse


def test_sums_by_hand():
  student, teacher = _table(0, 5, 5), _table(1, 5, 5)
  found = distribution.sequence_divergences(
    Bigram(5, 5), student, Bigram(5, 5), teacher, *_inputs()
  )
  rows = [_by_hand(student, teacher, r) for r in ([2, 0, 4], [3])]
  expected = np.transpose(rows)
  for name, sums in zip(('forward_kl', 'reverse_kl'), expected):
    np.testing.assert_allclose(found[name][0], sums, rtol=1e-5)
    np.testing.assert_array_equal(found[name][1], [3, 1])


def test_padded_rows_of_either_vocabulary_do_not_count():
  student, teacher = _table(0, 5, 5), _table(1, 5, 5)
  wide_student = np.pad(student, ((0, 2), (0, 2)), constant_values=9.0)
  wide_teacher = np.pad(teacher, ((0, 4), (0, 4)), constant_values=-7.0)
  expected = distribution.sequence_divergences(
    Bigram(5, 5), student, Bigram(5, 5), teacher, *_inputs()
  )
  found = distribution.sequence_divergences(
    Bigram(7, 5), wide_student, Bigram(9, 6), wide_teacher, *_inputs()
  )
  for name, (sums, counts) in expected.items():
    np.testing.assert_allclose(found[name][0], sums, rtol=1e-5)
    np.testing.assert_array_equal(found[name][1], counts)


def test_a_model_is_at_no_distance_from_itself():
  table = _table(0, 5, 5)
  found = distribution.sequence_divergences(
    Bigram(5, 5),
    table,
    Bigram(5, 5),
    table,
    *_inputs(),
    names=tuple(distribution.DIVERGENCES),
  )
  assert set(found) == {'forward_kl', 'reverse_kl', 'jsd'}
  for sums, _ in found.values():
    np.testing.assert_allclose(sums, 0.0, atol=1e-6)


def test_the_teacher_reads_its_own_prompt():
  student, teacher = _table(0, 5, 5), _table(1, 5, 5)
  prompt, response = _inputs()
  found = distribution.sequence_divergences(
    Bigram(5, 5),
    student,
    Bigram(5, 5),
    # Row 1 stands where the student's row 3 does, for the second example.
    teacher[[0, 3, 2, 1, 4]],
    prompt,
    response,
    teacher_prompt=types.Prompt(np.array([[2], [1]]), np.ones((2, 1), bool)),
  )
  forward, reverse = _by_hand(student, teacher, [3])
  np.testing.assert_allclose(found['forward_kl'][0][1], forward, rtol=1e-5)
  np.testing.assert_allclose(found['reverse_kl'][0][1], reverse, rtol=1e-5)


def test_unknown_names_list_the_known():
  with pytest.raises(ValueError, match=r"\['kl'\].*forward_kl, reverse_kl"):
    distribution.check_names(['kl'])
