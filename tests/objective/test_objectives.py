"""What a sum of terms asks of a step."""

from kdjax.objective import Objective, Term

B = 10
RISING = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 8}


def term(source='data', **fields):
  return Term('t', 'forward_kl', source, **fields)


def test_the_greediest_term_decides_the_rows():
  goal = Objective(
    (term('student'), term({'student': 0.2, 'data': 0.8}), term('data'))
  )
  assert goal.rollout_rows(0, B, 0) == B
  assert Objective((term('data'),)).rollout_rows(0, B, 0) == 0


def test_terms_on_the_same_responses_share_a_view():
  kl = Term('a', 'forward_kl', {'data': 1, 'student': 0})
  same = Term('b', 'reverse_kl', {'student': 0.0, 'data': 1.0}, normalize='sum')
  gold = Term('c', 'cross_entropy', 'data')
  tossed = Term('d', 'cross_entropy', 'data', coin='batch')
  other = Term('e', 'cross_entropy', {'data': 0.5, 'student': 0.5})
  coin = Term('f', 'cross_entropy', {'data': 0.5, 'student': 0.5}, coin='batch')
  goal = Objective((kl, gold, same, tossed, other, coin))
  names = [[term.name for term in goal.readers(d)] for d in goal.views()]
  assert names == [['a', 'b'], ['c', 'd'], ['e'], ['f']]


def test_one_coin_cannot_serve_two_mixtures():
  tossed = Term('a', 'forward_kl', {'student': 0.5, 'data': 0.5}, coin='batch')
  always = Term('b', 'reverse_kl', 'student')
  gold = Term('c', 'cross_entropy', 'data')
  same = Term('d', 'reverse_kl', {'student': 0.5, 'data': 0.5}, coin='batch')
  assert Objective((tossed, gold, same)).problems() == []
  (found,) = Objective((tossed, always)).problems()
  assert "terms ['a', 'b'] draw from the student" in found


def test_what_is_replayed_must_be_sampled():
  then = {'student': 0.5, 'replay': 0.5}
  other = Term('o', 'forward_kl', then, task='corpus')
  goal = Objective((term('replay'), other))
  assert goal.replayed() == ('', 'corpus')
  (found,) = goal.problems()
  assert 'said to the main task, but none samples it there' in found
  here = Term('o', 'forward_kl', 'student')
  goal = Objective((term('replay', task='corpus'), here))
  (found,) = goal.problems()
  assert "said to the task 'corpus'" in found
  # A fraction of nothing replays nothing.
  idle = Objective((term({'replay': 0.0, 'data': 1.0}),))
  assert idle.problems() == [] and idle.replayed() == ()


def test_sources_are_those_of_all_terms():
  goal = Objective((term('student'), term('data', task='corpus')))
  assert goal.sources() == {'student', 'data'}
  assert goal.sources('corpus') == {'data'}
  assert goal.tasks() == {'', 'corpus'}
  assert goal.sampled('') == ('student',)
  assert goal.sampled('corpus') == ()


def test_pairs_are_two_views():
  pair = {'chosen': 'teacher', 'rejected': 'student'}
  goal = Objective(
    (Term('a', 'dpkd', pair), Term('b', 'cross_entropy', 'teacher'))
  )
  assert [draw.source for draw in goal.views()] == ['teacher', 'student']
  assert goal.draws() == goal.views()


def test_ranked_samples_are_judged_before_they_are_chosen():
  ranked = {'ranked': 'student', 'by': 'teacher_logprob'}
  goal = Objective((Term('a', 'ranking', ranked),))
  assert [draw.rank for draw in goal.views()] == ['best', 'worst']
  (samples,) = goal.draws()
  assert (samples.rank, samples.source) == ('', 'student')
  assert goal.rewards(samples) == {'teacher_logprob'}
  assert goal.models() == {'teacher'}


def test_models_are_those_that_losses_and_rewards_read():
  def models(*fields, **options):
    return Objective((Term('a', *fields, **options),)).models()

  assert models('cross_entropy') == set()
  assert models('forward_kl') == {'teacher'}
  assert models('kl_estimate', 'student') == {'reference'}
  for reward, read in (
    ('induced', {'teacher'}),
    ('reverse_kl', {'teacher'}),
    ('learned', {'reward'}),
    ('rougeL', set()),
  ):
    assert models('policy_gradient', 'student', reward=reward) == read
  pair = {'chosen': 'data', 'rejected': 'rejected'}
  assert models('dpo', pair) == {'reference'}
  assert models('dpo', pair, loss_args={'reference': 'teacher'}) == {'teacher'}


def test_a_greedy_baseline_is_judged_but_not_learned_from():
  policy = Term(
    'a',
    'policy_gradient',
    'student',
    reward='bleu',
    loss_args={'baseline': 'greedy'},
  )
  goal = Objective((policy,))
  assert [draw.source for draw in goal.views()] == ['student']
  assert [draw.source for draw in goal.draws()] == ['student', 'greedy']
  assert all(goal.rewards(draw) == {'bleu'} for draw in goal.draws())
  assert goal.foreign_rewards() == {'bleu'}
  assert goal.sampled('') == ('greedy', 'student')
  assert goal.rollout_rows(0, B, 0) == B


def test_a_greedy_baseline_spoils_the_coin():
  mixed = {'student': 0.5, 'data': 0.5}
  tossed = Term('a', 'forward_kl', mixed, coin='batch')
  policy = Term(
    'b',
    'policy_gradient',
    'student',
    reward='bleu',
    loss_args={'baseline': 'greedy', 'importance': False},
  )
  (found,) = Objective((tossed, policy)).problems()
  assert "terms ['a', 'b'] draw from the student" in found


def test_names_of_parameters_are_not_taken_twice():
  layers = Term('student', 'hidden_distance')
  (found,) = Objective((layers,)).problems()
  assert "terms ['student'] have parameters of their own" in found
  assert Objective((Term('student', 'forward_kl'),)).problems() == []
