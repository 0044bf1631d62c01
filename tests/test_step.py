"""Scoring and learning against plain formulas, on tabular models."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import optimizers, recipes, step, testing, types
from kdjax.objective import Objective, Term
from tests.step_cases import (
  SGD,
  B,
  S,
  T,
  V,
  assert_close,
  assert_same,
  batch,
  fresh,
  frozen,
  gkd,
  gkd_formula,
  log_probs,
  models,
  settings,
)


def test_gkd_is_the_papers_formula_in_value_and_gradient():
  program = gkd()
  views, _ = program.rollout(fresh(program), frozen(), batch(), 3)
  after, metrics = program.update(fresh(program), frozen(), batch(), 3)
  params = models()[1]
  value, grads = jax.value_and_grad(gkd_formula)(
    params, batch().prompt, views[0]
  )
  assert_close(metrics['loss'][0], value)
  assert_close(
    after.params['student'], jax.tree.map(jnp.subtract, params, grads)
  )
  norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(grads)))
  assert_close(metrics['gradient_norm'][0], norm)


def test_the_gradient_is_what_finite_differences_say():
  program = gkd()
  views, _ = program.rollout(fresh(program), frozen(), batch(), 3)
  scored, _ = program.score(fresh(program), frozen(), batch(), views)
  loss = lambda params: program.learn(fresh(program, params), frozen(), scored)[
    1
  ]['loss'][0]
  after, _ = program.learn(fresh(program), frozen(), scored)
  params = models()[1]
  directions = jax.tree.map(
    lambda x: jax.random.normal(jax.random.key(3), x.shape), params
  )
  moved = lambda h: jax.tree.map(lambda x, d: x + h * d, params, directions)
  slope = (loss(moved(1e-2)) - loss(moved(-1e-2))) / 2e-2
  steps = jax.tree.map(jnp.subtract, params, after.params['student'])
  inner = sum(
    jnp.vdot(s, d)
    for s, d in zip(jax.tree.leaves(steps), jax.tree.leaves(directions))
  )
  # A central difference in float32: h^2 and 1e-7 / h of values near 1.
  np.testing.assert_allclose(inner, slope, rtol=1e-2, atol=1e-4)


def test_rows_are_known_where_all_steps_sample_as_many():
  program = gkd()
  _, metrics = program.update(fresh(program), frozen(), batch())
  expected = program.update(fresh(program), frozen(), batch(), 3)[1]
  assert_same(metrics, expected)
  other = gkd(coin='batch')
  with pytest.raises(ValueError, match='another number of rows at every step'):
    other.update(fresh(other), frozen(), batch())


def test_updates_are_deterministic_in_seed_and_step():
  program = gkd()
  run = lambda **options: program.update(
    fresh(program, **options), frozen(), batch(), 3
  )
  first, second = run(), run()
  assert_same(first[0].params, second[0].params)
  assert_same(first[1], second[1])
  assert run(seed=1)[1]['loss'][0] != first[1]['loss'][0]
  views = [
    program.rollout(
      dataclasses.replace(fresh(program), step=jnp.int32(at)),
      frozen(),
      batch(),
      3,
    )[0]
    for at in (0, 1)
  ]
  assert np.any(views[0][0].tokens != views[1][0].tokens)


@functools.cache
def three_normalizers(micro_batch=None):
  goal = Objective(
    (
      Term('a', 'generalized_jsd', 'data', 0.5, normalize='token'),
      Term('b', 'reverse_kl', 'data', normalize='sequence'),
      Term('c', 'cross_entropy', 'data', 0.1, normalize='sum'),
    )
  )
  return step.Program(settings(goal, micro_batch=micro_batch))


def test_micro_batches_do_not_change_the_update():
  results = []
  for size in (None, 1, 2, 3):
    program = three_normalizers(size)
    after, metrics = program.update(fresh(program), frozen(), batch(), 0)
    results.append((after.params, after.opt_state, metrics))
  for other in results[1:]:
    assert_close(other, results[0])
  change = jax.tree.map(
    lambda a, b: np.max(np.abs(a - b)), results[0][0]['student'], models()[1]
  )
  assert min(jax.tree.leaves(change)) > 1e-2  # 1e4 times the tolerance


def test_terms_add_up_with_their_weights():
  program = three_normalizers(None)
  _, metrics = program.update(fresh(program), frozen(), batch(), 0)
  mean = lambda name: metrics[name][0] / metrics[name][1]
  total = 0.5 * mean('loss/a') + mean('loss/b') + 0.1 * mean('loss/c')
  assert_close(metrics['loss'][0], total)
  mask = np.asarray(batch().responses['data'].mask)
  assert metrics['loss/a'][1] == metrics['tokens'][0] == mask.sum()
  assert metrics['loss/b'][1] == metrics['loss/c'][1] == B - 1


def test_scheduled_weights_follow_the_step():
  fading = {'kind': 'linear', 'start': 2.0, 'end': 0.0, 'steps': 4}
  program = step.Program(
    settings(Objective((Term('a', 'forward_kl', weight=fading),)))
  )
  for at, weight in ((0, 2.0), (1, 1.5), (4, 0.0)):
    before = dataclasses.replace(fresh(program), step=jnp.int32(at))
    _, metrics = program.update(before, frozen(), batch(), 0)
    total, number = metrics['loss/a']
    assert_close(metrics['loss'][0], weight * total / number)


def test_masked_rows_and_tokens_contribute_nothing():
  program = three_normalizers(None)
  data = batch().responses['data']
  rng = np.random.default_rng(5)
  noise = jnp.asarray(rng.integers(0, V, (B, T)))
  changed = dataclasses.replace(
    data, tokens=jnp.where(data.mask, data.tokens, noise)
  )
  tokens = batch().prompt.tokens.at[-1].set(3)  # of the row without response
  other = dataclasses.replace(
    batch(),
    prompt=dataclasses.replace(batch().prompt, tokens=tokens),
    responses={'data': changed},
  )
  assert np.any(changed.tokens != data.tokens)
  results = [
    program.update(fresh(program), frozen(), rows, 0)
    for rows in (batch(), other)
  ]
  assert_same(results[0][0].params, results[1][0].params)
  assert_same(results[0][1], results[1][1])


def test_a_batch_without_responses_moves_nothing():
  program = three_normalizers(None)
  empty = jax.tree.map(jnp.zeros_like, batch().responses['data'])
  after, metrics = program.update(
    fresh(program),
    frozen(),
    dataclasses.replace(batch(), responses={'data': empty}),
    0,
  )
  assert_same(after.params['student'], models()[1])
  assert metrics['loss'][0] == 0
  assert after.skipped == 0


def test_steps_that_are_not_finite_change_only_the_counters():
  adam = optimizers.OptimizerConfig(learning_rate=0.1)
  goal = recipes.build('gkd', beta=0.5)
  program = step.Program(settings(goal, optimizer=adam))
  broken = {'teacher': jax.tree.map(lambda x: x * jnp.nan, models()[3])}
  current, _ = program.update(fresh(program), frozen(), batch(), 3)
  kept = jax.device_get((current.params, current.opt_state))
  for count in (1, 2):
    current, metrics = program.update(current, broken, batch(), 3)
    assert_same((current.params, current.opt_state), kept)
    assert metrics['skipped'] == metrics['consecutive_skipped'] == (count, 1)
    assert current.step == 1 + count
    # A mean over several steps isn't spoilt by the skipped.
    for name in ('loss', 'loss/gkd', 'gradient_norm', 'forward_kl'):
      assert_same(metrics[name], (0, 0))
  current, metrics = program.update(current, frozen(), batch(), 3)
  assert (current.skipped, current.consecutive_skipped) == (2, 0)
  assert metrics['loss'][1] == 1
  assert np.any(
    current.params['student']['kernel'] != kept[0]['student']['kernel']
  )


def test_an_update_that_overflows_is_skipped():
  wild = dataclasses.replace(SGD, learning_rate=3e38)
  goal = Objective((Term('a', 'forward_kl', weight=1e3),))
  program = step.Program(settings(goal, optimizer=wild))
  after, metrics = program.update(fresh(program), frozen(), batch(), 0)
  assert_same(after.params['student'], models()[1])
  assert (after.step, after.skipped) == (1, 1)
  assert_same(metrics['consecutive_skipped'], (1, 1))


def test_divergences_are_measured_every_so_often():
  goal = recipes.build('supervised_kd', divergence='total_variation')
  program = step.Program(settings(goal, measure_every=3))
  (view,) = [batch().responses['data']]
  student, params, teacher, teacher_params = models()
  log_q = log_probs(student, params, batch().prompt, view)
  log_p = log_probs(teacher, teacher_params, batch().prompt, view)
  for at in range(4):
    before = dataclasses.replace(fresh(program), step=jnp.int32(at))
    _, metrics = program.update(before, frozen(), batch(), 0)
    for name, (a, b) in (
      ('forward_kl', (log_p, log_q)),
      ('reverse_kl', (log_q, log_p)),
    ):
      each = jnp.sum(jnp.exp(a) * (a - b), -1) * view.mask
      due = at % 3 == 2
      expected = (each.sum(), view.mask.sum()) if due else (0, 0)
      assert_close(metrics[name], expected)
      first = (each[:, 0].sum(), view.mask[:, 0].sum()) if due else (0, 0)
      assert_close(metrics[f'{name}_first'], first)


def test_several_views_have_their_own_responses_and_metrics():
  goal = Objective(
    (
      Term('on', 'reverse_kl', 'student'),
      Term('off', 'forward_kl', 'teacher'),
      Term('gold', 'cross_entropy', 'data'),
    )
  )
  program = step.Program(settings(goal, measure_every=1))
  views, _ = program.rollout(fresh(program), frozen(), batch(), B)
  assert_same(views[1], batch().responses['teacher'])
  assert_same(views[2], batch().responses['data'])
  _, metrics = program.update(fresh(program), frozen(), batch(), B)
  # The teacher reads what losses compare with it, and no more.
  names = {
    f'{way}_kl{first}/{source}'
    for way in ('forward', 'reverse')
    for first in ('', '_first')
    for source in ('student', 'teacher')
  }
  assert names == {name for name in metrics if '_kl' in name}
  assert_close(metrics['loss/on'], metrics['reverse_kl/student'])
  assert_close(metrics['loss/off'], metrics['forward_kl/teacher'])
  assert metrics['tokens'][0] == sum(view.mask.sum() for view in views)


def test_padded_rows_of_the_teachers_head_do_not_matter():
  program = gkd(lam=0.0)
  teacher = models()[3]
  cut = {**teacher, 'kernel': teacher['kernel'].at[:, V:].set(-9.0)}
  results = [
    program.update(fresh(program), {'teacher': params}, batch(), 0)[0].params
    for params in (teacher, cut)
  ]
  assert_same(*results)


def test_the_teacher_reads_its_own_prompts():
  goal = recipes.build('gkd', lam=0.0)
  program = step.Program(settings(goal, measure_every=1))
  other = types.Prompt((batch().prompt.tokens + 1) % V, jnp.ones((B, S), bool))
  rows = dataclasses.replace(batch(), teacher_prompts=(other,))
  views, _ = program.rollout(fresh(program), frozen(), rows, 0)
  scored, _ = program.score(fresh(program), frozen(), rows, views)
  student, params, teacher, teacher_params = models()
  expected = teacher.hidden_states(teacher_params, other, views[0].tokens)
  assert_same(scored.views[0].teacher, expected)
  _, metrics = program.update(fresh(program), frozen(), rows, 0)
  log_q = log_probs(student, params, rows.prompt, views[0])
  log_p = log_probs(teacher, teacher_params, other, views[0])
  kl = jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1) * views[0].mask
  assert_close(metrics['forward_kl'][0], kl.sum())


@dataclasses.dataclass(frozen=True)
class Dropping(testing.TabularModel):
  """Half of its hidden units drop out where a key is given."""

  def hidden_states(self, params, prompt, tokens, *, dropout_key=None):
    hidden = super().hidden_states(params, prompt, tokens)
    if dropout_key is None:
      return hidden
    return hidden * 2 * jax.random.bernoulli(dropout_key, 0.5, hidden.shape)


def test_dropout_is_for_learning_only():
  plain = gkd()
  dropping = Dropping(**dataclasses.asdict(models()[0]))
  goal = plain.settings.objective
  program = step.Program(settings(goal, student=dropping))
  views, _ = program.rollout(fresh(program), frozen(), batch(), 3)
  assert_same(views, plain.rollout(fresh(plain), frozen(), batch(), 3)[0])
  teacher = Dropping(**dataclasses.asdict(models()[2]))
  dull = step.Program(settings(goal, teacher=teacher))
  judge = lambda program: program.score(
    fresh(program), frozen(), batch(), views
  )[0]
  assert_close(judge(dull), judge(plain))
  scored = judge(plain)
  losses = []
  for at in (0, 0, 1):
    before = dataclasses.replace(fresh(program), step=jnp.int32(at))
    _, metrics = program.learn(before, frozen(), scored)
    losses.append(float(metrics['loss'][0]))
  assert losses[0] == losses[1] != losses[2]
  _, metrics = plain.learn(fresh(plain), frozen(), scored)
  assert abs(losses[0] - metrics['loss'][0]) > 1e-3


def test_nothing_is_compiled_twice():
  program, compiled = gkd(), []

  def listen(name, *_, **__):
    if 'backend_compile' in name:
      compiled.append(name)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    current, _ = program.update(fresh(program), frozen(), batch(), 3)
    compiled.clear()
    for _ in range(3):
      current, _ = program.update(current, frozen(), batch(), 3)
    assert not compiled
    # Another number of rollouts is another program for the rollout alone.
    program.update(current, frozen(), batch(), 2)
    assert len(compiled) == 1
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def test_without_a_teacher():
  goal = recipes.build('sft')
  program = step.Program(settings(goal, teacher=None))
  after, metrics = program.update(fresh(program), {}, batch(), 0)
  assert after.step == 1
  assert 'forward_kl' not in metrics
  with pytest.raises(ValueError, match=r"\['gkd'\] need a teacher"):
    step.Program(settings(recipes.build('gkd'), teacher=None))


def test_micro_batches_must_divide_the_batch():
  program = step.Program(settings(recipes.build('gkd'), micro_batch=4))
  with pytest.raises(ValueError, match='=4 does not divide batch_size=6'):
    program.update(fresh(program), frozen(), batch(), 3)


@pytest.mark.parametrize('lam', [0.0, 1.0])
def test_the_student_approaches_the_teacher(lam):
  adam = optimizers.OptimizerConfig(learning_rate=0.1)
  goal = recipes.build('gkd', lam=lam, divergence='forward_kl')
  program = step.Program(settings(goal, optimizer=adam, measure_every=1))
  current, found = fresh(program), []
  for _ in range(60):
    rows = goal.rollout_rows(0, B, 0)
    current, metrics = program.update(current, frozen(), batch(), rows)
    found.append(metrics['forward_kl'])
  kl = [float(total / number) for total, number in found]
  assert np.mean(kl[-5:]) < 0.3 * kl[0]
  assert current.skipped == 0
