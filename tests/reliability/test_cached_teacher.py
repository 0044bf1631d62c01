"""Promise 6 where it ends: learning from a cache, with no teacher at hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from kdjax import checks, generate, losses, metrics, train
from kdjax.data import vocabularies

# Measured for students alone.
MEASURED = {
  'checkpoint__best_metric': 'exact_match',
  'checkpoint__best_mode': 'max',
  'checkpoint__export': 'last',
  'eval__every': 0,
  'eval__references': False,
  'eval__test_examples': 4,
}
# Those of DIVERGENCES that no joining of outcomes makes larger.
BOUNDS = sorted(set(losses.DIVERGENCES) - {'adaptive_kl'})


def recipe(*divergences):
  terms = [{'loss': each, 'source': 'teacher'} for each in divergences]
  return {'name': 'terms', 'terms': tuple(terms)}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('cached')


@pytest.fixture(scope='module')
def written(tiny, folder):
  """Returns a function of k to the directory of a teacher's responses."""

  @functools.cache
  def write(k):
    c = tiny(generate__top_logprobs=k, generate__shard_size=24)
    generate.generate(checks.validate(c, 'generate'), str(folder / f'k{k}'))
    return str(folder / f'k{k}')

  return write


@pytest.fixture(scope='module')
def learn(tiny, folder):
  """Trains for four steps; returns its lines of metrics and its student."""

  def run(name, divergences, responses, **options):
    c = tiny(
      steps=4,
      log_every=1,
      recipe=recipe(*divergences),
      task__teacher_responses=responses,
      **MEASURED,
      **options,
    )
    workdir = folder / name
    train.train(checks.validate(c), str(workdir))
    path = workdir / 'student' / 'model.safetensors'
    return metrics.read(workdir), safetensors.numpy.load_file(path)

  return run


@pytest.mark.slow
def test_learning_from_a_cache_is_learning_from_the_teacher(
  written, learn, tries, tried
):
  size = vocabularies.load('g2p').size
  cached = {'task__teacher_logprobs': 'cached', 'teacher__config': {}}
  groups = [('forward_kl', 'generalized_jsd')]
  groups += [(name,) for name in BOUNDS][: tries(0, len(BOUNDS))]
  for group in groups:
    name = '-'.join(group)
    live, expected = learn(f'{name}-live', group, written(size))
    lines, student = learn(f'{name}-all', group, written(size), **cached)
    named = [f'loss/{each}' for each in group] + ['loss', 'forward_kl']
    for line, other in zip(lines, live, strict=True):
      assert line['teacher_mass'] == 1
      for key in (*named, 'reverse_kl_first', 'gradient_norm'):
        # Logarithms of the teacher's are rounded once more.
        np.testing.assert_allclose(line[key], other[key], rtol=1e-4)
    for key, value in student.items():
      # Adam's first steps are of the gradient's sign, where that is rounding.
      np.testing.assert_allclose(value, expected[key], rtol=1e-3, atol=1e-4)
    for k in (8, 1)[: tries(1, 2)]:
      lines, _ = learn(f'{name}-{k}', group, written(k), **cached)
      assert all(0 < line['teacher_mass'] < 1 for line in lines)
      for key in named:  # before they go their own ways
        assert 0 <= lines[0][key] < live[0][key], (key, k)
  tried(6, 'runs from cached log-probabilities, against live ones', len(groups))


@functools.cache
def _compiled(k):
  @jax.jit
  def run(student, teacher):
    known = losses.top_k(teacher, k)
    found = {}
    for name in BOUNDS:
      loss = losses.DIVERGENCES[name]
      part = lambda x, loss=loss: loss(x, known).sum()
      found[name] = loss(student, known), jax.grad(part)(student)
      found[name] += (loss(student, teacher),)
    return found

  return run


@pytest.mark.slow
def test_any_logits_give_a_lower_bound_and_a_finite_gradient(fuzz):
  """Of spread, sharp, missing and near equal tokens; at k = V its value."""
  rows, size = 8, 6

  def check(seed, scale, missing, nearness, k):
    rng = np.random.default_rng(seed)
    student, noise = scale * rng.normal(size=(2, rows, size))
    teacher = (1 - nearness) * noise + nearness * student
    for logits in (student, teacher):
      logits[rng.random(logits.shape) < missing] = -np.inf
    student, teacher = jnp.float32(student), jnp.float32(teacher)
    for name, (value, slope, whole) in _compiled(k)(student, teacher).items():
      # What is below the least normal float32 may have either sign.
      assert np.all(value > -2e-38) and np.all(np.isfinite(slope)), name
      assert np.all(value <= whole * (1 + 1e-4) + 1e-5), name
      if k == size:
        np.testing.assert_allclose(value, whole, rtol=1e-4, atol=1e-5)

  fuzz(
    6,
    'logits of which the top k are a lower bound',
    check,
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-3, 1.0, 5.0, 50.0, 1e4]),
    st.sampled_from([0.0, 0.2, 0.7]),
    st.sampled_from([0.0, 0.5, 0.999, 1.0]),
    st.sampled_from([2, size]),
    quick=100,
    often=20_000,
  )
