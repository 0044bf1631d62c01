"""Metrics by name: all of them yield statistics, and say what they are."""

import numpy as np
import pytest

from kdjax.evaluation import minilm, text


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow if 'bertscore' in name else ())
    for name in text.METRICS
  ],
)
def test_every_metric_yields_statistics_of_each_example(name):
  if text.missing([name]):
    pytest.skip(f'{name} needs what is not installed')
  said, refs = ['#### 1 a', 'b c', ''], [('#### 1 a',)] * 3
  scores = text.score(name, said, refs, inputs=['a', 'b', 'c'])
  assert scores.statistics.shape[0] == 3
  assert scores.statistics.dtype == np.float64
  assert scores.per_example.shape == (3,)
  assert np.isfinite(scores.per_example).all()
  stacked = np.stack([scores.statistics.sum(0)] * 2)
  np.testing.assert_allclose(scores.aggregate(stacked), [scores.value] * 2)


@pytest.mark.parametrize(
  'name, said, refs, message',
  [
    ('rouge', ['a'], [('a',)], "'rouge'.*Allowed: rouge1, rouge2"),
    ('bleu', ['a'], [('a',), ('b',)], '1 predictions and 2'),
    ('bleu', [], [], '0 predictions'),
    ('bleu', ['a', 'b'], [('a',), ()], 'example 1'),
    ('bleu', ['a'], ['text'], "'text'.*tuple"),
  ],
)
def test_bad_input_names_the_value(name, said, refs, message):
  with pytest.raises(ValueError, match=message):
    text.score(name, said, refs)


def test_every_metric_says_its_convention_in_a_line():
  assert text.CONVENTIONS.keys() == text.METRICS.keys()
  assert set(text.METRICS) >= text.LOWER_IS_BETTER
  assert all(len(said) <= 110 for said in text.CONVENTIONS.values())


@pytest.mark.parametrize('inputs, count', [(None, 'no'), (['a'], '1')])
def test_metrics_that_read_the_prompts_say_so(inputs, count):
  assert text.needs_inputs('ibleu') and not text.needs_inputs('bleu')
  with pytest.raises(ValueError, match=f'ibleu.*{count} inputs for 2'):
    text.score('ibleu', ['a', 'b'], [('a',)] * 2, inputs=inputs)


def test_what_a_metric_lacks_is_said_before_anything_is_scored(monkeypatch):
  monkeypatch.setattr(minilm, 'PACKAGE', 'no_such_package')
  with pytest.raises(ValueError, match=r'kdjax\[bertscore\]'):
    text.check_names(['bleu', 'bertscore_minilm'])
  assert text.missing(['bleu', 'rouge1']) == []
