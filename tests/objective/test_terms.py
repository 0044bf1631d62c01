"""Terms: their arguments, what they read, and what is wrong with them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, types
from kdjax.objective import (
  LOSSES,
  Objective,
  Reading,
  Target,
  Term,
  View,
  token_losses,
)

RISING = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 8}


def logits():
  keys = jax.random.split(jax.random.key(0), 2)
  return [jax.random.normal(key, (2, 3, 5)) for key in keys]


LABELS = jnp.array([[0, 1, 2], [3, 4, 0]])


MASK = jnp.ones((2, 3), bool)


def values(term, step, student, teacher):
  view = View(None, types.Response(LABELS, MASK), MASK.any(-1))
  reading = Reading(view, student, teacher)
  return term.values(step, (reading,), Target(MASK))[0]


@pytest.mark.parametrize('name', sorted(token_losses.LOSSES))
def test_every_loss_of_tokens_gives_a_value_a_token(name):
  student, teacher = logits()
  needs = LOSSES[name].wants({})
  if 'reference' in needs:
    return  # tested with the policies that it holds near
  found = values(Term('t', name), jnp.int32(0), student, teacher)
  assert found.shape == (2, 3)
  if 'teacher' not in needs:
    alone = values(Term('t', name), jnp.int32(0), student, None)
    np.testing.assert_array_equal(found, alone)


def test_arguments_reach_the_loss_and_follow_the_step():
  student, teacher = logits()
  args = {'beta': RISING, 'temperature': 2, 'normalized': True}
  mixed = Term('t', 'generalized_jsd', loss_args=args)
  for step, beta in ((0, 0.0), (2, 0.25), (8, 1.0)):
    found = jax.jit(lambda step: values(mixed, step, student, teacher))(step)
    expected = losses.generalized_jsd(
      student, teacher, beta=beta, temperature=2.0, normalized=True
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_argmax_cross_entropy_learns_the_teachers_choice():
  student, teacher = logits()
  found = values(Term('t', 'argmax_cross_entropy'), 0, student, teacher)
  expected = losses.cross_entropy(student, jnp.argmax(teacher, -1))
  np.testing.assert_array_equal(found, expected)


def test_a_sound_objective_has_no_problems():
  args = {'beta': RISING, 'temperature': 1, 'normalized': False}
  goal = Objective(
    (
      Term('a', 'generalized_jsd', 'student', RISING, loss_args=args),
      Term('b', 'cross_entropy', {'data': 'rest', 'teacher': RISING}, -1),
    )
  )
  assert goal.problems() == []


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'loss': 'kl'}, r"unknown loss 'kl'; known are \['adaptive_kl'"),
    ({'loss_args': {'bata': 1}}, r"takes no \['bata'\]; it takes \['beta', "),
    ({'loss_args': {'beta': 1.5}}, r'loss_args.beta=1.5: expected 0 to 1'),
    ({'loss_args': {'beta': 'x'}}, r"loss_args.beta: schedule 'x'"),
    ({'loss_args': {'beta': True}}, r'loss_args.beta=True: expected float'),
    ({'loss_args': {'normalized': 1}}, r'normalized=1: expected bool'),
    ({'loss_args': {'temperature': 0}}, r'temperature=0: must be above 0'),
    (
      {'loss': 'skew_forward_kl', 'loss_args': {'alpha': 2.0}},
      r'loss_args.alpha=2.0: expected 0 to 1',
    ),
    ({'normalize': 'mean'}, r"'mean'; allowed are \['token', 'sequence', "),
    ({'coin': 'row'}, r"coin='row'; allowed are \['example', 'batch'\]"),
    ({'weight': math.inf}, r'weight=inf: expected a finite number'),
    ({'weight': {'kind': 'linear'}}, r'weight: schedule .* missing keys'),
    ({'source': 'gold'}, r"unknown sources \['gold'\]; allowed are \['stud"),
    ({'source': {}}, r'source={}: expected one of'),
    ({'source': ['data']}, r"source=\['data'\]: expected one of"),
    ({'source': {'data': 0.7, 'student': 0.5}}, r'add up to 1.2, expected 1'),
    ({'source': {'data': 1.2}}, r'source.data=1.2: expected 0 to 1'),
    ({'source': {'data': None}}, r'source.data: schedule None'),
    ({'source': {'data': 'rest', 'teacher': 'rest'}}, r"take the 'rest'"),
    ({'source': {'data': 0.5, 'student': RISING}}, r"give one source the 'r"),
    (
      {'source': {'data': 'rest', 'teacher': 0.5, 'student': RISING}},
      r"add up to 1.5, leaving no 'rest'",
    ),
  ],
)
def test_problems_name_the_value_and_what_is_allowed(fields, message):
  fields = {'loss': 'generalized_jsd', 'source': 'data', **fields}
  (found,) = Term('t', **fields).problems()
  with pytest.raises(ValueError, match=message):
    raise ValueError(found)
  assert found.startswith("term 't': ")


def test_every_problem_is_listed():
  bad = Term('bad', 'kl', {'gold': 1.0}, 'heavy', normalize='mean', coin='row')
  hot = Term('bad', 'forward_kl', loss_args={'temperature': -1.0, 'beta': 0})
  found = Objective((bad, hot)).problems()
  for part in (
    "'kl'", 'gold', 'weight: ', 'mean', 'row', 'temperature=-1.0', "['beta']",
    "share the names ['bad']",
  ):  # fmt: skip
    assert sum(part in problem for problem in found) == 1, part
  assert len(found) == 8
  assert Objective(()).problems() == ['an objective needs at least one term']


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'loss': 'dpo'}, r"source='data': dpo compares pairs: \{'chosen': "),
    (
      {'source': {'chosen': 'data', 'rejected': 'student'}},
      r'forward_kl compares one response a prompt',
    ),
    ({'source': {'chosen': 'data'}}, r"expected the keys \['chosen', 'rej"),
    ({'source': {'ranked': 'student'}}, r"expected the keys \['by', 'ranked"),
    (
      {'source': {'greedy': 0.5, 'student': 0.5}},
      r"mixes \['student', 'greedy'\]; one of them",
    ),
    (
      {'loss': 'policy_gradient', 'source': 'student'},
      r'policy_gradient needs a reward: name one',
    ),
    ({'reward': 'bleu'}, r"reward='bleu': forward_kl reads none"),
    (
      {'loss': 'policy_gradient', 'source': 'teacher', 'reward': 'bleu'},
      r"source='teacher': policy_gradient weighs samples .* source='student'",
    ),
    (
      {
        'loss': 'policy_gradient',
        'source': 'student',
        'reward': 'bleu',
        'loss_args': {'baseline': 'best'},
      },
      r"loss_args.baseline='best'; allowed are \['none', 'mean'",
    ),
    (
      {'loss': 'cpo', 'source': {'chosen': 'student', 'rejected': 'student'}},
      'both sides are the same response, so that no pair counts',
    ),
    (
      {'loss': 'ranking', 'source': {'ranked': 'data', 'by': 'bleu'}},
      'only the student gives several samples',
    ),
    (
      {
        'loss': 'policy_gradient',
        'reward': 'bleu',
        'loss_args': {'baseline': 'group', 'importance': False},
      },
      'only the student gives several samples',
    ),
    (
      {
        'loss': 'policy_gradient',
        'source': {'student': 1.0, 'data': 0.0},
        'reward': 'bleu',
      },
      'weighs samples by the log-probabilities',
    ),
    (
      {
        'loss': 'policy_gradient',
        'source': 'student',
        'reward': 'bleu',
        'loss_args': {'importance': False, 'clip': 0.2},
      },
      'set importance=True with it',
    ),
    (
      {
        'loss': 'policy_gradient',
        'source': 'student',
        'reward': 'bleu',
        'loss_args': {'baseline': 'group', 'discount': 0.9},
      },
      r"compares whole responses: leave out \['discount'\]",
    ),
    (
      {'loss': 'attention_distance', 'loss_args': {'strategy': 'weighted'}},
      'combines hidden states, not attention maps',
    ),
    ({'finished_only': 'no'}, "finished_only='no': expected bool"),
    ({'task': 3}, 'task=3: expected str'),
    (
      {'loss': 'hidden_distance', 'loss_args': {'target_layer': RISING}},
      r'target_layer=.*: expected a whole number',
    ),
  ],
)
def test_a_loss_and_a_source_must_fit(fields, message):
  fields = {'loss': 'forward_kl', 'source': 'data', **fields}
  (found,) = Term('t', **fields).problems()
  with pytest.raises(ValueError, match=message):
    raise ValueError(found)


POLICY = {'loss': 'policy_gradient', 'reward': 'induced'}


@pytest.mark.parametrize(
  'fields, messages',
  [
    (
      {'loss': 'dpkd', 'source': {'chosen': 'teacher', 'rejected': 'replay'}},
      ['no pair is of one prompt'],
    ),
    (
      {**POLICY, 'loss_args': {'importance': False}},
      ["are an older policy's, and policy_gradient takes samples for the"],
    ),
    (
      {**POLICY, 'loss_args': {'importance': False, 'baseline': 'greedy'}},
      ["baseline='greedy' has none to compare them with", 'older policy'],
    ),
    (POLICY, ['weighs samples by the log-probabilities']),
    (
      {'loss': 'reward_regression', 'reward': 'bleu'},
      [r"without the texts and references that ['bleu'] reads"],
    ),
    ({'loss': 'reward_regression', 'reward': 'induced'}, []),
    ({'loss': 'hidden_distance'}, []),
    ({'loss': 'forward_kl', 'finished_only': True}, []),
  ],
)
def test_replayed_responses_bring_their_own_prompts(fields, messages):
  found = Term('t', **{'source': 'replay', **fields}).problems()
  assert len(found) == len(messages)
  for message, problem in zip(messages, found):
    assert message in problem
