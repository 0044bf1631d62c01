"""Replays: what is kept, who reads which entry, and what it is read with."""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import step, types
from kdjax.objective import Objective, Term
from kdjax.step import replay
from tests.step_cases import (
  B,
  T,
  V,
  assert_close,
  assert_same,
  batch,
  fresh,
  frozen,
  log_probs,
  models,
  settings,
)

RISING = {'kind': 'linear', 'start': 0.0, 'end': 0.5, 'steps': 2}
MIXED = {'student': 1 / 3, 'replay': 1 / 3, 'data': 'rest'}


@functools.cache
def program(source='replay', **options):
  """The student's samples beside draws of earlier ones."""
  source = dict(source) if isinstance(source, tuple) else source
  terms = [Term('then', 'forward_kl', source)]
  if source == 'replay':
    terms.insert(0, Term('now', 'forward_kl', 'student'))
  return step.Program(settings(Objective(tuple(terms)), **options))


def start(made, size=2 * B, given=None):
  memories = (step.memory(size, given or batch(), T),)
  return dataclasses.replace(fresh(made), replay=memories)


def numbered(first):
  """The batch with other examples' prompts: no two are alike."""
  ids = jnp.arange(first, first + B)
  tokens = jnp.stack([ids % V, ids // V % V, ids // V**2], 1)
  prompt = types.Prompt(tokens, jnp.ones_like(tokens, bool))
  return dataclasses.replace(batch(), prompt=prompt, example_id=ids)


def in_phases(made, state, *args):
  return made.update(state, *args, around=lambda phase, run: run())


def drawn(made, state, given, rows=B):
  """Returns the next state, and all responses of a step."""
  said, _ = made.rollout(state, frozen(), given, rows)
  return made.recall(state, given, said, rows)


def texts(*parts):
  """Rows as they can be looked up: prompts and what was said."""
  arrays = [np.asarray(x) for part in parts for x in (part.tokens, part.mask)]
  return [tuple(x[i].tobytes() for x in arrays) for i in range(len(arrays[0]))]


def test_a_ring_keeps_the_latest_rows():
  size, last = 5, collections.deque(maxlen=5)
  kept, remember = step.memory(size, batch(), T), jax.jit(replay.remember)
  for at, count in enumerate((3, 0, 3, 5, 3)):
    given = numbered(20 * at)
    tokens = jnp.arange(B)[:, None] * jnp.ones((1, T), int) + 100 * at
    said = types.Response(tokens, tokens % 2 > 0)
    rows = jnp.arange(B)[::-1][:count]
    kept = remember(kept, given, said, rows, jnp.int32(at))
    pairs = texts(given.prompt, said)
    last.extend((pairs[row], at) for row in np.asarray(rows))
    found = texts(kept.rows.prompt, kept.rows.responses['student'])
    found = list(zip(found, kept.steps.tolist()))
    oldest = int(kept.position) if len(last) == size else 0
    assert (found[oldest:] + found[:oldest])[: len(last)] == list(last)
    assert (kept.steps >= 0).sum() == len(last)


def test_every_entry_is_as_likely_as_any_other():
  kept = step.memory(9, batch(), T)
  kept = dataclasses.replace(kept, steps=jnp.where(jnp.arange(9) < 7, 3, -1))
  tokens = jnp.arange(9)[:, None] * jnp.ones((1, T), jnp.int32)
  said = types.Response(tokens, tokens >= 0)
  rows = dataclasses.replace(kept.rows, responses={'student': said})
  kept = dataclasses.replace(kept, rows=rows)
  ids = jnp.arange(7000)
  entries, steps, filled = replay.choose(kept, jax.random.key(0), ids)
  assert filled == 7 and np.all(steps == 3)
  counts = np.bincount(entries.responses['student'].tokens[:, 0])
  assert len(counts) == 7
  # Of chi-squared with 6 degrees of freedom, 1 in 1,000 is above 22.5.
  assert np.sum((counts - 1000) ** 2 / 1000) < 22.5
  # A row's entry is its own, wherever it stands.
  moved, *_ = replay.choose(kept, jax.random.key(0), ids[::-1])
  assert_same(moved, jax.tree.map(lambda x: x[::-1], entries))
  other, *_ = replay.choose(kept, jax.random.key(1), ids)
  same = (
    other.responses['student'].tokens == entries.responses['student'].tokens
  )
  assert 0.1 < np.mean(same[:, 0]) < 0.19


def test_a_memory_of_one_batch_replays_what_was_just_said():
  made, given = program(), numbered(0)
  state, (now, then), metrics = drawn(made, start(made, B), given)
  pairs = texts(given.prompt, now)
  chosen = [pairs.index(x) for x in texts(then.asked.prompt, then)]
  assert len(set(chosen)) > 1 and chosen != list(range(B))
  assert_same(then.asked.example_id, given.example_id[jnp.asarray(chosen)])
  assert_same(metrics, {'replay/age': (0, B), 'replay/filled': (B, 1)})
  assert sorted(
    texts(
      state.replay[0].rows.prompt, state.replay[0].rows.responses['student']
    )
  ) == sorted(pairs)
  # So the term is the student's own, of these rows.
  _, found = made.update(start(made, B), frozen(), given, B)
  student, params, teacher, teacher_params = models()
  log_q = log_probs(student, params, given.prompt, now)
  log_p = log_probs(teacher, teacher_params, given.prompt, now)
  each = jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1) * now.mask
  assert_close(found['loss/now'], (each.sum(), now.mask.sum()))
  rows = jnp.asarray(chosen)
  assert_close(found['loss/then'], (each[rows].sum(), now.mask[rows].sum()))


def test_rows_of_a_mixture_are_of_one_source_each():
  made = program(tuple(MIXED.items()))
  state, known = start(made), {}
  for at in range(3):
    given = numbered(B * at)
    said, _ = made.rollout(state, frozen(), given, 2)
    sampled = np.asarray(said[-1].mask.any(1))
    assert sampled.sum() == 2
    asked = texts(given.prompt, said[-1])
    known |= {asked[row]: at for row in np.flatnonzero(sampled)}
    state, (view,), metrics = made.recall(state, given, said, 2)
    found = texts(view.asked.prompt, view)
    gold = texts(given.prompt, given.responses['data'])
    own = [found[i] == asked[i] and sampled[i] for i in range(B)]
    data = [found[i] == gold[i] for i in range(B)]
    earlier = [i for i in range(B) if not own[i] and not data[i]]
    # An example's own row may be replayed to it, or be its gold response.
    assert len(earlier) <= 2 <= sum(own) and sum(data) >= 2
    assert all(found[i] in known for i in earlier)
    age, count = metrics['replay/age']
    assert count == 2 and metrics['replay/filled'][0] == 2 * (at + 1)
    assert 0 <= age <= 2 * at
    state = dataclasses.replace(state, step=state.step + 1)
  assert set(known.values()) == {0, 1, 2}


@functools.cache
def growing():
  source = {'student': RISING, 'replay': 0.5, 'data': 'rest'}
  goal = Objective((Term('then', 'forward_kl', source),))
  assert goal.problems() == []
  return step.Program(settings(goal))


def test_nothing_is_replayed_as_long_as_nothing_was_said():
  made = growing()
  said, _ = made.rollout(start(made), frozen(), batch(), 0)
  state, (view,), metrics = made.recall(start(made), batch(), said, 0)
  assert_same(metrics, {'replay/age': (0, 0), 'replay/filled': (0, 1)})
  assert_same(view.asked.prompt, batch().prompt)
  assert_same(state.replay, start(made).replay)
  gold = texts(batch().responses['data'])
  kept = [i for i in range(B) if texts(view)[i] == gold[i]]
  assert len(kept) >= 3
  assert np.sum(np.any(np.asarray(view.mask), 1)) <= 3


@pytest.mark.slow
def test_what_is_not_replayed_yet_counts_for_nothing():
  made = growing()
  said, _ = made.rollout(start(made), frozen(), batch(), 0)
  _, (view,), _ = made.recall(start(made), batch(), said, 0)
  after, found = made.update(start(made), frozen(), batch(), 0)
  assert np.isfinite(found['loss'][0])
  assert found['loss/then'][1] == view.mask.sum()
  # Later there is something, by whoever has said it.
  _, found = made.update(after, frozen(), batch(), 3)
  assert found['replay/filled'][0] == 3 and found['replay/age'][1] == 3


def test_teachers_read_the_prompts_of_the_entries():
  made, first, second = program(), numbered(0), numbered(B)

  def taught(given):
    other = jax.tree.map(lambda x: x[:, ::-1], given.prompt)
    return dataclasses.replace(given, teacher_prompts=(other,))

  first, second = taught(first), taught(second)
  state, _, _ = drawn(made, start(made, given=first), first)
  state = dataclasses.replace(state, step=state.step + 1)
  state, responses, _ = drawn(made, state, second)
  then = responses[1]
  (heard,) = then.asked.teacher_prompts
  assert_same(heard.tokens, then.asked.prompt.tokens[:, ::-1])
  both = texts(first.prompt) + texts(second.prompt)
  assert {both.index(x) < B for x in texts(then.asked.prompt)} == {True, False}
  scored, _ = made.score(state, frozen(), second, responses)
  view = scored.views[1]
  assert_same(view.prompt, then.asked.prompt)
  assert view.response.asked is None
  *_, teacher, params = models()
  hidden = teacher.hidden_states(params, heard, then.tokens)
  assert_close(view.teacher, hidden)


def test_a_reward_that_is_not_finite_names_the_example_of_the_entry():
  now = Term('now', 'forward_kl', 'student')
  judged = Term('then', 'reward_regression', 'replay', reward='teacher_logprob')
  made = step.Program(settings(Objective((now, judged))))
  first, second = numbered(0), numbered(B)
  state, *_ = drawn(made, start(made), first)
  state = dataclasses.replace(state, step=state.step + 1)
  state, responses, _ = drawn(made, state, second)
  said = responses[1]
  row = int(np.flatnonzero(said.mask.any(1))[0])
  given = {'teacher': jax.tree.map(lambda x: x * jnp.nan, models()[3])}
  _, found = made.score(state, given, second, responses)
  named = found['not_finite/teacher_logprob'][0]
  assert named == said.asked.example_id[row] != second.example_id[row]


@pytest.mark.parametrize(
  'options',
  [
    {},
    pytest.param({'updates_per_rollout': 2}, marks=pytest.mark.slow),
    pytest.param({'shared': True}, marks=pytest.mark.slow),
  ],
)
def test_one_program_does_what_the_phases_do(options):
  made = program(**options)
  states = start(made, B + 2), start(made, B + 2)
  for at in range(2):
    given = frozen(), numbered(B * at), B
    states, metrics = zip(
      made.update(states[0], *given), in_phases(made, states[1], *given)
    )
    assert_close(*metrics)
    assert_close(*(state.params for state in states))
    assert_same(*(state.replay for state in states))
  assert states[0].step == 2
  assert sorted(states[0].replay[0].steps.tolist()) == [0, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize('run', [step.Program.update, in_phases])
def test_rollouts_ahead_are_kept_when_they_are_learned_from(run):
  # A program is made for states that hold a rollout, or for those that don't.
  made = step.Program(program().settings)
  first, second = numbered(0), numbered(B)
  state = made.ahead(start(made), frozen(), first, B)
  said = state.pending_rollout[0][-1]
  expected = texts(first.prompt, said)
  state, metrics = run(made, state, frozen(), first, B, second)
  kept = state.replay[0]
  found = texts(kept.rows.prompt, kept.rows.responses['student'])
  assert found[:B] == expected
  assert metrics['replay/filled'][0] == B
  assert kept.steps.tolist() == [0] * B + [-1] * B


@pytest.mark.slow
def test_neither_order_nor_micro_batches_change_an_update():
  made, parts = program(), program(micro_batch=2)
  order = jnp.asarray(np.random.default_rng(0).permutation(B))
  results = []
  for each, rows in ((made, None), (made, order), (parts, None)):
    state = start(each)
    for at in range(2):
      given = numbered(B * at)
      if rows is not None:
        given = jax.tree.map(lambda x: x[order], given)
      state, metrics = each.update(state, frozen(), given, B)
    results.append((state.params, metrics['loss'], state.replay))
  for other in results[1:]:
    assert_close(other[:2], results[0][:2])
    assert_same(other[2], results[0][2])


@pytest.mark.slow
def test_tasks_have_memories_of_their_own():
  goal = Objective(
    (
      Term('a', 'reverse_kl', 'student', task='unlabelled'),
      Term('b', 'reverse_kl', 'replay', task='unlabelled'),
      Term('c', 'forward_kl', {'student': 0.5, 'replay': 0.5}),
    )
  )
  assert goal.problems() == [] and goal.replayed() == ('', 'unlabelled')
  made, other = step.Program(settings(goal)), numbered(50)
  given = dataclasses.replace(numbered(0), tasks={'unlabelled': other})
  memories = (step.memory(8, batch(), T), step.memory(8, batch(), T))
  state = dataclasses.replace(fresh(made), replay=memories)
  state, responses, metrics = drawn(made, state, given)
  assert [r.asked is None for r in responses] == [True, False, False]
  for memory, part in zip(state.replay, (given, other)):
    assert texts(memory.rows.prompt)[:B] == texts(part.prompt)
  assert metrics['replay/age'][1] == 3
  assert metrics['replay/unlabelled/age'][1] == B
  made.rehearse({'student': models()[1]}, frozen(), given, B)


def test_a_state_without_room_is_refused():
  made = program()
  with pytest.raises(
    ValueError, match=r"tasks \[''\], but .* holds 0 memories"
  ):
    made.update(fresh(made), frozen(), batch(), B)
  with pytest.raises(ValueError, match='replay_size=5, but .* answers 6 rows'):
    made.update(start(made, B - 1), frozen(), batch(), B)
