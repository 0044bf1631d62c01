"""Analyses hand on what they are of, and say in tables what they found."""

import json

import numpy as np
import pytest

from kdjax import evaluation
from kdjax.evaluation import analyses, analysis_tables, sampled
from tests.evaluation.test_loop import (
  Letters,
  N,
  T,
  _evaluator,
  _examples,
  _model,
)


@pytest.fixture(scope='module')
def subject():
  student, params = _model(0)
  teacher, fixed = _model(1)
  evaluator = _evaluator(student)
  return analyses.Subject(
    results={'student': evaluator(params, _examples(N))},
    batches=lambda: _examples(N),
    evaluator=evaluator,
    params=params,
    pair=evaluation.Pair(
      student=student,
      student_params=params,
      teacher=teacher,
      teacher_params=fixed,
      max_new_tokens=T,
    ),
    samples=3,
    temperatures=(0.2, 1.0),
    length_edges=(2, 100),
  )


@pytest.fixture(scope='module')
def found(subject):
  return analyses.run(list(evaluation.ANALYSES), subject)


@pytest.mark.slow
def test_each_is_that_of_its_function(subject, found):
  bias = evaluation.exposure_bias(subject.pair, subject.batches(), samples=3)
  mine = found['exposure_bias']['student']
  assert mine['ex_error'] == bias.ex_error.tolist()
  assert mine['excess_error_high'] == bias.high.tolist()
  assert mine['length'] == [1, 2, 3, 4, 5]
  covered = evaluation.likelihood_and_coverage(
    subject.pair, Letters(), subject.batches(), samples=3
  )
  for name, (value, low, high) in covered.items():
    mine = found['coverage']['student']
    assert (mine[name], mine[f'{name}_low']) == (value, low)
    assert mine[f'{name}_high'] == high
  for row in found['temperatures']['student']:
    drawn = sampled.draw(
      subject.evaluator,
      subject.params,
      subject.batches,
      samples=3,
      temperature=row['temperature'],
    )
    for name, (value, _, high) in sampled.quality(drawn).items():
      assert (row[name], row[f'{name}_high']) == (value, high)


@pytest.mark.slow
def test_what_is_found_is_json_without_nan(found):
  assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.slow
def test_buckets_without_examples_have_no_score(subject, found):
  short, long, none = found['length_buckets']['student']
  assert short['examples'] + long['examples'] == N and none['examples'] == 0
  assert none['rouge1'] is None and none['high'] is None
  of = subject.results['student']
  per_example = of.scores['rouge1'].per_example
  words = np.array([len(texts[0].split()) for texts in of.references])
  assert short['rouge1'] == pytest.approx(per_example[words <= 2].mean())
  assert long['rouge1'] == pytest.approx(per_example[words > 2].mean())


@pytest.mark.parametrize(
  ('metrics', 'said', 'expected'),
  [
    (('gsm8k_accuracy',), 'so 3, #### 4', 4),
    (('gsm8k_accuracy',), 'so 3', None),
    (('gsm8k_accuracy_flexible',), 'so 3', 3),
    (('exact_match',), ' so  3 ', 'so 3'),
  ],
)
def test_an_answer_is_what_the_metrics_look_at(metrics, said, expected):
  _, answer, gold_answer = analyses._answer_of(metrics)
  assert answer(said) == expected
  assert gold_answer(said) is not None


@pytest.mark.slow
def test_tables_show_every_analysis_and_its_convention(found):
  text = analysis_tables.analysis_tables(found)
  for name, each in evaluation.ANALYSES.items():
    assert f'{name}: {each.convention}\n\n|' in text
  rows = [line.split('|') for line in text.splitlines()]
  lengths = [row[1].strip() for row in rows[4:8]]
  assert lengths == ['1', '2', '4', '5']
  assert '| 0-2 ' in text and '| 101+ ' in text and 'cons@3' in text


@pytest.mark.slow
def test_what_has_no_value_is_a_dash(subject):
  same = dict(vars(subject))
  del same['pair']
  pair = evaluation.Pair(
    student=subject.pair.student,
    student_params=subject.params,
    teacher=subject.pair.student,
    teacher_params=subject.params,
    max_new_tokens=T,
  )
  of = analyses.Subject(**same, pair=pair)
  found = analyses.run(['exposure_bias'], of)
  assert found['exposure_bias']['student']['ex_error'] == [None] * T
  assert '| -        | -' in analysis_tables.analysis_tables(found)
