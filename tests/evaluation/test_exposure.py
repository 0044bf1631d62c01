"""Excess error by length is what enumeration says, whatever the batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, testing, types
from kdjax.evaluation import exposure, rollouts
from tests import enumeration as e

# So many samples that an average is within 1/64 of a standard deviation.
ROWS, SAMPLES = 512, 8


def pair(**changes):
  student, params, teacher, fixed = e.models()
  given = rollouts.Pair(
    student=student,
    student_params=params,
    teacher=teacher,
    teacher_params=fixed,
    max_new_tokens=e.T,
  )
  return dataclasses.replace(given, **changes)


def batches(size, count=ROWS, prompt=e.PROMPT, **fields):
  """One prompt many times: examples differ in their numbers alone."""
  for start in range(0, count, size):
    ids = np.minimum(np.arange(start, start + size), count - 1)
    given = jax.tree.map(lambda x: np.repeat(x, size, 0), (prompt, fields))
    batch = types.Batch(given[0], example_id=ids.astype(np.int32), **given[1])
    yield batch, min(size, count - start)


def exact(log_weights):
  """E and Var of the KL by position, and the share alive, under weights."""
  student, params, teacher, fixed = e.models()
  values = losses.forward_kl(
    e.logits(student, params), e.logits(teacher, fixed)
  )
  mask = np.asarray(e.sequences().mask)
  weights = np.exp(log_weights)[:, None] * mask
  alive = weights.sum(0)
  mean = (weights * values).sum(0) / alive
  variance = (weights * (values - mean) ** 2).sum(0) / alive
  return mean, variance, alive


def test_errors_and_survival_are_those_of_enumeration():
  student, params, teacher, fixed = e.models()
  found = exposure.exposure_bias(
    pair(), batches(ROWS), samples=SAMPLES, resamples=20
  )
  expected = {
    'student': exact(e.log_probabilities(student, params)),
    'teacher': exact(e.log_probabilities(teacher, fixed)),
  }
  exacts = {}
  for role, (mean, variance, alive) in expected.items():
    # Four standard errors; positions are averaged over those that reach them.
    error = np.sqrt(np.cumsum(variance / (ROWS * SAMPLES * alive)))
    exacts[role] = np.cumsum(mean)
    off = getattr(found, f'{role}_divergence') - exacts[role]
    assert np.all(np.abs(off) <= 4 * error + 1e-5), role
  # The samples must tell the two apart, or this says nothing.
  excess = 100 * (exacts['student'] / exacts['teacher'] - 1)
  assert excess[-1] > 5
  np.testing.assert_allclose(found.ex_error, excess, atol=3)
  alive = np.minimum(expected['student'][2], expected['teacher'][2])
  # Four standard errors of a share near a half.
  np.testing.assert_allclose(found.alive, alive, atol=4 * 0.5 / 64)
  np.testing.assert_array_equal(found.length, [1, 2, 3])
  np.testing.assert_allclose(
    found.accumulated_error,
    found.length * found.student_divergence / found.teacher_divergence,
  )


def test_the_first_token_has_no_prefix_and_so_no_excess():
  found = exposure.exposure_bias(pair(), batches(ROWS, 8), resamples=20)
  assert found.ex_error[0] == pytest.approx(0, abs=1e-3)
  assert found.alive[0] == 1
  assert found.high[0] - found.low[0] < 1e-3
  assert np.all(found.low[1:] < found.ex_error[1:])
  assert np.all(found.ex_error[1:] < found.high[1:])


@pytest.mark.slow
def test_batches_do_not_matter_and_what_fills_them_does_not_count():
  whole = exposure.exposure_bias(pair(), batches(7, 7), resamples=20)
  parts = exposure.exposure_bias(pair(), batches(3, 7), resamples=20)
  for field in dataclasses.fields(whole):
    np.testing.assert_allclose(
      getattr(parts, field.name), getattr(whole, field.name), rtol=1e-5
    )
  other = exposure.exposure_bias(pair(seed=1), batches(7, 7), resamples=20)
  assert other.student_divergence[-1] != whole.student_divergence[-1]


def test_a_student_that_is_its_teacher_has_no_error_to_exceed():
  teacher, fixed = e.models()[2:]
  same = pair(student=teacher, student_params=fixed)
  found = exposure.exposure_bias(same, batches(ROWS, 4), resamples=20)
  np.testing.assert_allclose(found.teacher_divergence, 0, atol=1e-5)
  assert np.isnan(found.ex_error).all() and np.isnan(found.low).all()


@pytest.mark.slow
def test_the_curve_ends_where_either_model_has_ended():
  # Of the ids 0 to 2, only 1 ends; a teacher that always says so.
  model, params = testing.tabular(jax.random.key(1), vocab_size=e.V, width=3)
  first = {**params, 'table': jnp.ones_like(params['table'])}
  first['kernel'] = jnp.zeros_like(params['kernel']).at[:, 1].set(20.0)
  found = exposure.exposure_bias(
    pair(teacher=model, teacher_params=first), batches(ROWS, 4), resamples=20
  )
  assert len(found.ex_error) == 1


@pytest.mark.slow
def test_the_teacher_reads_its_own_prompt():
  prompt = types.Prompt(np.array([[0, 1]]), np.ones((1, 2), bool))
  plain = exposure.exposure_bias(pair(), batches(ROWS, 8), resamples=20)
  other = exposure.exposure_bias(
    pair(), batches(ROWS, 8, teacher_prompts=(prompt,)), resamples=20
  )
  assert other.teacher_divergence[0] != plain.teacher_divergence[0]


@pytest.mark.slow
def test_ids_that_one_model_does_not_know_are_never_sampled():
  """A teacher with more ids than the student scores no sample as infinite."""
  teacher, fixed = testing.tabular(jax.random.key(1), vocab_size=6)
  found = exposure.exposure_bias(
    pair(teacher=teacher, teacher_params=fixed), batches(ROWS, 8), resamples=20
  )
  assert np.isfinite(found.teacher_divergence).all()


def test_no_examples_is_an_error():
  with pytest.raises(ValueError, match='no examples'):
    exposure.exposure_bias(pair(), [])
