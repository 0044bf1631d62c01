"""Who is drawn from, what judges it, and how often it is learned from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import optimizers, recipes, rewards, sampling, state, step, types
from kdjax.objective import Objective, Term
from tests.step_cases import (
  B,
  T,
  assert_close,
  assert_same,
  batch,
  fresh,
  frozen,
  log_probs,
  models,
  settings,
)


def program(name, *, recipe=None, **options):
  goal = name if isinstance(name, Objective) else None
  goal = goal or recipes.build(name, **(recipe or {}))
  return step.Program(settings(goal, **options))


def policy(reward='teacher_logprob', **args):
  term = Term(
    'policy', 'policy_gradient', 'student', reward=reward, loss_args=args
  )
  return Objective((term,))


GROUPS = {'samples_per_prompt': 3}


def test_groups_are_samples_of_one_prompt():
  made = program(policy(baseline='group'), sampling=GROUPS)
  (view,), _ = made.rollout(fresh(made), frozen(), batch(), B)
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0)
  expected = sampling.generate(
    models()[0], models()[1], batch().prompt, key, max_new_tokens=T,
    row_ids=batch().example_id, **GROUPS,
  )  # fmt: skip
  assert view.tokens.shape == (3 * B, T)
  assert_same(view.tokens, expected.tokens)
  assert_same(view.sampling_logprobs, expected.sampling_logprobs)
  scored, _ = made.score(fresh(made), frozen(), batch(), (view,))
  prompts = scored.views[0].prompt.tokens
  assert_same(prompts, jnp.repeat(batch().prompt.tokens, 3, 0))


def test_groups_of_part_of_a_batch_are_refused():
  made = program(policy(baseline='group'), sampling=GROUPS)
  with pytest.raises(ValueError, match='samples_per_prompt=3, but .* 3 of 6'):
    made.rollout(fresh(made), frozen(), batch(), 3)


def test_micro_batches_of_groups_do_not_change_the_update():
  results = []
  for size in (None, 1, 3):
    made = program(policy(baseline='group'), sampling=GROUPS, micro_batch=size)
    results.append(made.update(fresh(made), frozen(), batch(), B))
  for after, metrics in results[1:]:
    assert_close(after.params, results[0][0].params)
    assert_close(metrics, results[0][1])
  change = results[0][0].params['student']['kernel'] - models()[1]['kernel']
  assert np.abs(change).max() > 1e-3


def test_ranked_samples_are_the_best_and_the_worst():
  made = program('ranking', sampling=GROUPS)
  responses, _ = made.rollout(fresh(made), frozen(), batch(), B)
  assert len(responses) == 1
  scored, _ = made.score(fresh(made), frozen(), batch(), responses)
  best, worst = (view.response for view in scored.views)
  assert best.tokens.shape == (B, T)
  _, _, teacher, params = models()

  def totals(response, prompt):
    scores = log_probs(teacher, params, prompt, response)
    index = response.tokens[..., None]
    each = jnp.take_along_axis(scores, index, -1)[..., 0]
    return jnp.sum(each * response.mask, -1)

  prompts = jax.tree.map(lambda x: jnp.repeat(x, 3, 0), batch().prompt)
  every = totals(responses[0], prompts).reshape(B, 3)
  assert_close(totals(best, batch().prompt), every.max(-1))
  assert_close(totals(worst, batch().prompt), every.min(-1))
  differ = np.any(best.tokens != worst.tokens, -1)
  assert_same(scored.targets['ranking'].mask, differ)
  _, metrics = made.update(fresh(made), frozen(), batch(), B)
  assert metrics['loss/ranking'][1] == differ.sum()


def test_a_teacher_online_answers_with_its_own_prompts():
  made = program('seqkd', teacher_sampling={'temperature': 1.0})
  other = jax.tree.map(lambda x: x[::-1], batch().prompt)
  rows = dataclasses.replace(batch(), responses={}, teacher_prompts=(other,))
  (view,), _ = made.rollout(fresh(made), frozen(), rows, 0)
  assert view.mask[:, 0].all() and view.tokens.max() < 5
  same = dataclasses.replace(rows, teacher_prompts=None)
  (plain,), _ = made.rollout(fresh(made), frozen(), same, 0)
  assert np.any(plain.tokens != view.tokens)
  at_one = dataclasses.replace(fresh(made), step=jnp.int32(1))
  (later,), _ = made.rollout(at_one, frozen(), rows, 0)
  assert np.any(later.tokens != view.tokens)
  # What was written beforehand is not sampled again.
  (written,), _ = made.rollout(fresh(made), frozen(), batch(), 0)
  assert_same(written, batch().responses['teacher'])


def test_the_greedy_source_is_the_students_best_guess():
  made = program('engine', sampling={'temperature': 1.0})
  (view,), _ = made.rollout(fresh(made), frozen(), batch(), B)
  expected = sampling.generate(
    models()[0], models()[1], batch().prompt, jax.random.key(1),
    max_new_tokens=T, temperature=0,
  )  # fmt: skip
  assert_same((view.tokens, view.mask), (expected.tokens, expected.mask))


def test_mixed_rollouts_know_how_likely_they_were():
  made = program('minillm', recipe={'lm_weight': 0.0}, teacher_mix=0.2)
  (view,), _ = made.rollout(fresh(made), frozen(), batch(), B)
  student, params, teacher, teacher_params = models()
  log_q = log_probs(student, params, batch().prompt, view)
  log_p = log_probs(teacher, teacher_params, batch().prompt, view)
  mixed = jnp.log(0.2 * jnp.exp(log_p) + 0.8 * jnp.exp(log_q))
  each = jnp.take_along_axis(mixed, view.tokens[..., None], -1)[..., 0]
  assert_close(view.sampling_logprobs, each * view.mask)
  _, metrics = made.update(fresh(made), frozen(), batch(), B)
  assert metrics['rollout/length'][0] == view.mask.sum()
  ratio = jnp.exp(
    jnp.take_along_axis(log_q, view.tokens[..., None], -1)[..., 0] - each
  )
  assert_close(metrics['policy/ratio'][0], jnp.sum(ratio * view.mask))


def test_other_tasks_have_prompts_and_responses_of_their_own():
  goal = Objective(
    (
      Term('on', 'reverse_kl', 'student', task='unlabelled'),
      Term('lm', 'cross_entropy', 'data', task='corpus'),
      Term('gold', 'cross_entropy', 'data'),
    )
  )
  made = program(goal)
  moved = jax.tree.map(lambda x: x[::-1], batch())
  rows = dataclasses.replace(
    batch(),
    tasks={
      'unlabelled': dataclasses.replace(moved, responses={}),
      'corpus': moved,
    },
  )
  views, metrics = made.rollout(fresh(made), frozen(), rows, B)
  assert_same(views[1], moved.responses['data'])
  assert_same(views[2], batch().responses['data'])
  assert 'rollout/unlabelled/length' in metrics
  scored, _ = made.score(fresh(made), frozen(), rows, views)
  assert_same(scored.views[0].prompt, moved.prompt)
  _, metrics = made.update(fresh(made), frozen(), rows, B)
  assert np.isfinite(metrics['loss'][0])
  with pytest.raises(ValueError, match=r"reads the task 'corpus', but .*\[\]"):
    made.rollout(fresh(made), frozen(), batch(), B)


def test_the_behaviour_policy_is_renewed_every_so_often():
  made = program('llmr', recipe={'scale': 1.0}, behaviour_sync=2)
  optimizer, params = made.settings.optimizer, models()[1]
  current = state.create(
    {'student': jax.tree.map(jnp.array, params)}, optimizer, 0, stale=True
  )
  seen = []
  for _ in range(4):
    before = jax.device_get(current.behaviour)
    current, _ = made.update(current, frozen(), batch(), B)
    same = np.array_equal(before['kernel'], current.behaviour['kernel'])
    seen.append(same)
    if not same:
      assert_same(current.behaviour, current.params['student'])
  assert seen == [True, False, True, False]


def test_a_step_may_update_several_times():
  once = program(policy(baseline='whiten', clip=0.2))
  twice = program(policy(baseline='whiten', clip=0.2), updates_per_rollout=2)
  current = fresh(once)
  responses, _ = once.rollout(current, frozen(), batch(), B)
  scored, _ = once.score(current, frozen(), batch(), responses)
  current, _ = once.learn(current, frozen(), scored)
  current, _ = once.learn(current, frozen(), scored)
  after, metrics = twice.update(fresh(twice), frozen(), batch(), B)
  assert_close(after.params, current.params)
  assert (after.step, current.step) == (1, 2)
  assert metrics['loss'][1] == 2
  # The first update is made where the ratio is 1, the second is not.
  total, number = metrics['policy/ratio']
  assert abs(total / number - 1) > 1e-4


def test_text_rewards_are_computed_between_rollout_and_update():
  seen = []

  def length(prompts, responses, references):
    seen.append((prompts, responses, references))
    return [float(len(text.split())) for text in responses]

  goal = policy(reward='length', baseline='group', importance=False)
  made = program(
    goal,
    sampling=GROUPS,
    rewards={'length': length},
    decode=lambda tokens: ' '.join(map(str, tokens)),
  )
  references = tuple((f'gold {i}',) for i in range(B))
  rows = dataclasses.replace(batch(), references=references)
  responses, _ = made.rollout(fresh(made), frozen(), rows, B)
  _, metrics = made.update(fresh(made), frozen(), rows, B)
  (prompts, texts, gold), *_ = seen
  assert len(prompts) == len(texts) == len(gold) == 3 * B
  assert gold[:4] == [('gold 0',)] * 3 + [('gold 1',)]
  row = np.asarray(responses[0].tokens[4])[np.asarray(responses[0].mask[4])]
  assert texts[4] == ' '.join(map(str, row))
  assert_same(
    metrics['reward/length'], (responses[0].mask.sum(), jnp.int32(3 * B))
  )


def test_traced_rewards_stay_on_the_device():
  reward = rewards.Traced(lambda prompt, response: response.mask.sum(-1) * 1.0)
  made = program(policy(reward='mine'), rewards={'mine': reward})
  _, metrics = made.update(fresh(made), frozen(), batch(), B)
  total, rows = metrics['reward/mine']
  assert total == metrics['rollout/length'][0]
  assert rows == B


@pytest.mark.parametrize(
  'reward, message',
  [
    (lambda p, r, g: [1.0], r"reward 'mine' returned the shape \(1,\)"),
    (
      lambda p, r, g: [float('nan')] * len(r),
      "reward 'mine' is nan for example",
    ),
  ],
)
def test_bad_rewards_change_nothing(reward, message):
  made = program(
    policy(reward='mine'), rewards={'mine': reward}, decode=lambda x: str(x)
  )
  before = fresh(made)
  with pytest.raises(ValueError, match=message):
    made.update(before, frozen(), batch(), B)
  assert_same(before.params['student'], models()[1])


@pytest.mark.parametrize(
  'value, message',
  [
    (lambda p, r: r.mask.sum(-1, keepdims=True), r'has the shape \(6, 1\); it'),
    (lambda p, r: r.mask.sum(-1) * jnp.nan, "reward 'mine' gives .*nan"),
  ],
)
def test_bad_traced_rewards_are_found_by_a_rehearsal(value, message):
  made = program(policy(reward='mine'), rewards={'mine': rewards.Traced(value)})
  data = batch().responses['data']
  with pytest.raises(ValueError, match=message):
    made.rehearse({'student': models()[1]}, frozen(), batch(), B)
    made.try_rewards(batch().prompt, data, ())


def test_a_rehearsal_names_the_example_of_a_bad_reward():
  reward = lambda asked, said, gold: [1.0] * (len(said) - 1) + [float('nan')]
  made = program(
    policy(reward='mine'), rewards={'mine': reward}, decode=lambda x: str(x)
  )
  given = batch().prompt, batch().responses['data'], ()
  with pytest.raises(ValueError, match=f'nan for example {40 + B - 1}, the'):
    made.try_rewards(*given, np.arange(40, 40 + B))


def test_a_rehearsal_compiles_and_changes_nothing():
  made = program('minillm', recipe={'lm_weight': 0.0}, teacher_mix=0.2)
  compiled = []
  listen = lambda name, *_, **__: compiled.append(name)
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    made.rehearse({'student': models()[1]}, frozen(), batch(), B)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert not [name for name in compiled if 'backend_compile' in name]


def test_several_prompts_of_the_teachers_give_their_mean_reward():
  made = program('llmr', recipe={'scale': 1.0, 'entropy_weight': 0.0})
  responses, _ = made.rollout(fresh(made), frozen(), batch(), B)
  other = jax.tree.map(lambda x: x[::-1], batch().prompt)

  def total(*prompts):
    rows = dataclasses.replace(batch(), teacher_prompts=prompts or None)
    _, metrics = made.score(fresh(made), frozen(), rows, responses)
    return metrics['reward/induced'][0]

  one, two = total(batch().prompt), total(other)
  assert_close(total(), one)
  assert abs(one - two) > 0.1
  assert_close(total(batch().prompt, other), (one + two) / 2)


def test_unfinished_samples_are_left_out():
  made = program('llmr', recipe={'scale': 1.0})
  responses, _ = made.rollout(fresh(made), frozen(), batch(), B)
  scored, _ = made.score(fresh(made), frozen(), batch(), responses)
  view = scored.views[0]
  ended = np.any(np.asarray(view.response.tokens == 1), 1)
  assert 0 < ended.sum() < B
  for target in scored.targets.values():
    assert_same(target.mask, view.response.mask & ended[:, None])
  # A term's weight is multiplied by the fraction of rows that stay.
  _, metrics = made.learn(fresh(made), frozen(), scored)
  mean = lambda name: metrics[name][0] / metrics[name][1]
  expected = mean('loss/policy') + 0.1 * mean('loss/entropy')
  assert_close(metrics['loss'][0], expected * ended.mean())


def test_what_a_program_lacks_is_said_at_once():
  with pytest.raises(ValueError, match='define .*has \\[\\]'):
    program(policy(reward='mine'))
  with pytest.raises(ValueError, match='give settings.decode'):
    program(policy(reward='mine'), rewards={'mine': print})
  with pytest.raises(ValueError, match='need a reward model'):
    program(policy(reward='learned'))
  with pytest.raises(ValueError, match='need a teacher'):
    program('seqkd', teacher=None, teacher_sampling={})


def test_a_reward_model_learns_to_judge_and_then_judges():
  reward = rewards.Traced(lambda prompt, response: response.mask.sum(-1) * 1.0)
  made = step.Program(
    settings(
      recipes.build('reward_regression', reward='length', source='data'),
      teacher=None,
      rewards={'length': reward},
      optimizer=optimizers.OptimizerConfig(learning_rate=0.05),
    )
  )
  both = {'student': models()[:2], 'teacher': (None, None)}
  own = step.auxiliary(made.settings.objective, both, jax.random.key(0))
  assert set(own) == {'reward'}
  current = state.create(
    {'student': jax.tree.map(jnp.array, models()[1]), **own},
    made.settings.optimizer,
    0,
  )
  errors = []
  for _ in range(60):
    current, metrics = made.update(current, {}, batch(), 0)
    errors.append(float(metrics['reward/absolute_error'][0]))
  assert errors[-1] < 0.3 * errors[0]

  judge = program(policy(reward='learned'), reward_model=models()[0])
  trained = jax.device_get(current.params)
  known = {
    **frozen(),
    'reward': {'model': trained['student'], 'head': trained['reward']},
  }
  data = batch().responses['data']
  given = types.Response(data.tokens, data.mask, jnp.zeros((B, T)))
  _, metrics = judge.score(fresh(judge), known, batch(), (given,))
  total, rows = metrics['reward/learned']
  assert rows == B - 1
  expected = data.mask.sum()
  # As many as the errors add up to, one a response.
  assert abs(total - expected) < errors[-1] + 0.5
