"""Several samples a prompt: pooled scores, diversity, votes."""

import pytest

from kdjax.evaluation import answers, loop, sampled, text
from tests.evaluation.test_loop import N, _evaluator, _examples, _model

REFERENCES = [('a b',), ('c', 'd'), ('e',)]


def results(*samples):
  return [
    loop.score_texts(said, REFERENCES, ('exact_match', 'bleu'), resamples=1)
    for said in samples
  ]


def test_quality_is_that_of_all_samples_as_one_set():
  samples = ['a b', 'c', 'x'], ['a', 'd', 'e f'], ['a b', 'c c', 'e']
  found = sampled.quality(results(*samples), resamples=50)
  pooled = [said for each in samples for said in each]
  for name in ('exact_match', 'bleu'):
    expected = text.score(name, pooled, REFERENCES * 3).value
    assert found[name].value == pytest.approx(expected), name
    assert found[name].low <= found[name].value <= found[name].high
  expected = text.self_bleu(list(zip(*samples))).value
  assert 0 < found['self_bleu'].value == expected < 100


def test_prompts_are_resampled_with_all_their_samples():
  """Copies of a sample say nothing more: the interval stays as wide."""
  once = ['a b', 'c', 'x']
  two = sampled.quality(results(once, once), resamples=200)
  many = sampled.quality(results(*[once] * 8), resamples=200)
  assert two == many
  assert two['self_bleu'] == (100, 100, 100)


def test_votes_and_passes():
  samples = ['1', 'c', 'e'], ['2', 'd', 'x'], ['2', 'x', 'x']
  found = sampled.final_answers(
    results(*samples), lambda said: said, lambda gold: gold, resamples=50
  )
  # Right: none of 'a b', two of ('c', 'd'), one of 'e'.
  assert found['pass@1'].value == pytest.approx(100 * 3 / 9)
  # 'c', 'd' and 'x' have a vote each, two of which are right; 'x' beats 'e'.
  assert found['cons@k'].value == pytest.approx(100 * 2 / 3 / 3)


def test_numbers_are_answers_and_no_number_is_no_vote():
  references = [('Thus #### 1,000',)]
  said = ['#### 1000', 'none', 'a 7']
  each = [loop.score_texts([x], references, (), resamples=1) for x in said]
  found = sampled.final_answers(
    each, answers.gsm8k_answer, answers.gsm8k_answer, resamples=50
  )
  assert found['pass@1'].value == pytest.approx(100 / 3)
  assert found['cons@k'].value == 100


@pytest.mark.slow
def test_samples_are_drawn_with_seeds_of_their_own():
  model, params = _model(0)
  # Its own temperature, beams and teacher don't count.
  teacher, _ = _model(1)
  evaluator = _evaluator(model, beams=2, teacher=teacher)
  draw = lambda samples, **settings: sampled.draw(
    evaluator,
    params,
    lambda: _examples(N),
    samples=samples,
    **{'temperature': 1.0, **settings},
  )
  two, three = draw(2), draw(3)
  assert [r.predictions for r in two] == [r.predictions for r in three[:2]]
  assert len({r.predictions for r in three}) == 3
  plain = _evaluator(model, temperature=1.0)(params, _examples(N))
  assert two[0].predictions == plain.predictions
  assert two[0].scores.keys() == {'rouge1', 'exact_match'}
  # The likeliest token alone is greedy decoding.
  greedy = _evaluator(model)(params, _examples(N)).predictions
  (sure,) = draw(1, top_p=1e-6, metrics=())
  assert sure.predictions == greedy and not sure.scores


def test_groups_hold_the_samples_of_a_prompt():
  found = sampled.groups(results(['a', 'b', 'c'], ['d', 'e', 'f']))
  assert found == [('a', 'd'), ('b', 'e'), ('c', 'f')]
