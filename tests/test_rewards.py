"""Rewards of the caller's: what they are, and what is refused."""

import math
import sys
import types as python_types
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import build, checks, evaluation, rewards
from kdjax.evaluation import text

PROMPTS = ['p', 'q', 'r']
RESPONSES = ['a b', 'c', '']
REFERENCES = [('a b', 'x'), ('d',), ()]


def judge(values, width=None):
  reward = lambda prompts, responses, references: values
  return rewards.judge('mine', reward, PROMPTS, RESPONSES, REFERENCES, width)


def test_a_reward_reads_prompts_responses_and_references():
  seen = []

  def reward(*lists):
    seen.append(lists)
    return [len(each) for each in lists[1]]

  found = rewards.judge('r', reward, PROMPTS, RESPONSES, REFERENCES)
  assert seen == [(PROMPTS, RESPONSES, REFERENCES)]
  np.testing.assert_array_equal(found, [3, 1, 0])


@pytest.mark.parametrize(
  'values',
  [
    [1, 0, 2],
    [True, False, True],
    (0.5, 1.5, -2.0),
    np.arange(3, dtype=np.float64),
    jnp.arange(3),
  ],
)
def test_numbers_of_any_kind_become_float32(values):
  found = judge(values)
  assert found.dtype == np.float32 and isinstance(found, np.ndarray)
  np.testing.assert_allclose(found, np.asarray(values))


def test_tokens_may_have_rewards_of_their_own():
  values = np.arange(6.0).reshape(3, 2)
  np.testing.assert_array_equal(judge(values, width=2), values)
  np.testing.assert_array_equal(judge([1, 2, 3], width=2), [1, 2, 3])


@pytest.mark.parametrize(
  'values, width, message',
  [
    ([1, 2], None, r"'mine' returned the shape \(2,\) for 3 responses, not"),
    (1.0, None, r'shape \(\) for 3 responses, not \(3,\): it must return one'),
    (np.ones((3, 2)), None, r'\(3, 2\) for 3 responses, not \(3,\): it'),
    (np.ones((3, 4)), 2, r'\(3, 4\) for 3 responses, not \(3,\) or \(3, 2\)'),
    (np.ones((2, 3)), 2, r'shape \(2, 3\)'),
    (['a', 'b', 'c'], None, r"'mine' returned <U1 values; it must return one"),
    ([1.0, None, 2.0], None, r'returned object values'),
    ([[1], [1, 2], []], None, r"'mine' returned no array"),
    ([1, math.nan, 2], None, r"'mine' is nan for the response 'c' to 'q'"),
    ([1, math.nan, math.inf], None, r'must be finite as float32; 2 of 3 are'),
    (
      [[1, 2], [3, 4], [5, -math.inf]],
      2,
      r"-inf\] for the response '' to 'r': it must be finite as float32; 1",
    ),
  ],
)
def test_what_is_no_number_a_response_is_refused(values, width, message):
  with pytest.raises(ValueError, match=message):
    judge(values, width)


def test_a_reward_that_is_not_finite_names_the_example():
  reward = lambda *lists: [1.0, math.inf, 2.0]
  lists = PROMPTS, ['a', 'b' * 999, 'c'], REFERENCES
  with pytest.raises(ValueError) as error:
    rewards.judge('mine', reward, *lists, ids=[7, 3, 5])
  assert "'mine' is inf for example 3, the response 'bbb" in str(error.value)
  told = "bbb... to 'q': it must be finite as float32; 1 of 3"
  assert told in str(error.value)


@pytest.mark.parametrize('value', [1e39, -1e300])
def test_a_reward_that_float32_cannot_hold_is_refused(value):
  reward = lambda *lists: [1.0, value, 2.0]
  lists = PROMPTS, RESPONSES, REFERENCES
  with pytest.raises(ValueError) as error, warnings.catch_warnings():
    warnings.simplefilter('error')
    rewards.judge('mine', reward, *lists, ids=[7, 3, 5])
  told = f"'mine' is {value} for example 3, the response 'c' to 'q'"
  assert told in str(error.value)


def test_a_run_rehearses_rewards_on_examples_that_it_knows(tiny):
  run, seen = build.build(checks.validate(tiny())), []
  program = python_types.SimpleNamespace(
    rehearse=lambda *unused: None, try_rewards=lambda *few: seen.append(few)
  )
  batch = next(run.train_iterator())
  run.rehearse(program, batch)
  ((prompt, response, _, ids),) = seen
  assert ids.tolist() == batch.example_id[:2].tolist() != [0, 1]
  np.testing.assert_array_equal(prompt.tokens, batch.prompt.tokens[:2])
  gold = batch.responses['data'].tokens[:2]
  np.testing.assert_array_equal(response.tokens, gold)


def test_what_a_reward_raises_is_left_as_it_is():
  def reward(*lists):
    raise KeyError('of its own')

  with pytest.raises(KeyError, match='of its own'):
    rewards.judge('mine', reward, PROMPTS, RESPONSES, REFERENCES)


@pytest.mark.parametrize(
  'name', ['exact_match', 'rougeL', 'bleu', 'ter', 'phoneme_error_rate']
)
def test_metrics_judge_each_response_on_its_own(name):
  responses = ['the cat sat here', 'a dog ran off', 'nothing at all of it']
  references = [
    ('the cat sat here', 'a cat'),
    ('the dog ran off home',),
    ('something else', 'nothing of it'),
  ]
  reward = rewards.metric_reward(name)
  found = reward(PROMPTS, responses, references)
  sign = -1 if evaluation.lower_is_better(name) else 1
  for i in range(3):
    alone = text.score(name, responses[i : i + 1], references[i : i + 1])
    np.testing.assert_allclose(found[i], sign * alone.value / 100, rtol=1e-6)
  # The best of them is the copy, whichever way the metric counts.
  assert np.argmax(found) == 0


def test_metrics_take_prompts_without_references():
  for name in ('rougeL', 'phoneme_error_rate'):
    found = rewards.metric_reward(name)(PROMPTS, ['a', 'b', 'c'], REFERENCES)
    assert np.all(np.isfinite(found))


def test_rewards_have_names():
  assert rewards.get('brevity') is rewards.brevity
  assert rewards.get('math:fsum') is math.fsum
  found = rewards.get('exact_match')(PROMPTS, RESPONSES, REFERENCES)
  np.testing.assert_array_equal(found, [1, 0, 1])


def test_a_metric_that_reads_prompts_is_given_them():
  said = ['a b c d e', 'a b c d x']
  found = rewards.get('ibleu')(said[:1] * 2, said, [('a b c d e',)] * 2)
  inputs = {'inputs': said[:1] * 2}
  scores = text.score('ibleu', said, [('a b c d e',)] * 2, **inputs)
  np.testing.assert_allclose(found, scores.per_example / 100)
  assert found[0] == pytest.approx(0.8)


def test_a_reward_of_ones_own_may_be_traced(monkeypatch):
  module = python_types.ModuleType('my_rewards')
  module.length = rewards.Traced(lambda prompt, response: response.mask.sum(-1))
  monkeypatch.setitem(sys.modules, 'my_rewards', module)
  assert rewards.get('my_rewards:length') is module.length


@pytest.mark.parametrize(
  'name, message',
  [
    ('blue', r"reward='blue': known are \[.*'bleu'.*'brevity'.*'module:func"),
    ('', r"reward='': known are"),
    ('no_such_module:f', r"'no_such_module:f' cannot .*Error: No module"),
    ('math:no_such_f', r"'math:no_such_f' cannot .*Error: module 'math'"),
    ('math:', r"'math:' cannot be imported"),
    (':f', r"':f' cannot be imported: .*: Empty"),
    ('math:pi', r"'math:pi' is 3.14.*: expected a function"),
  ],
)
def test_unknown_rewards_are_refused(name, message):
  with pytest.raises(ValueError, match=message):
    rewards.get(name)


def test_think_format_wants_thought_and_answer_and_nothing_else():
  good = '<think>so\nso</think>\n<answer>4</answer>\n'
  bad = ['4', f'well, {good}', '<think></think><answer>4</answer>', good + '4']
  responses = [good, *bad]
  found = rewards.think_format(responses, responses, [()] * len(responses))
  assert found == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_brevity_counts_what_is_longer_than_every_reference():
  found = rewards.brevity(
    PROMPTS, ['abcd', 'abcdef', 'abc'], [('ab', 'abcd'), ('abcd',), ()]
  )
  np.testing.assert_allclose(found, [0, -0.5, -2])
