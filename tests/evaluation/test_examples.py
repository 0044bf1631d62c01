"""What was said to each example comes back from the file."""

import json

import numpy as np

from kdjax.evaluation import examples, loop

REFERENCES = [('a b',), ('c', 'd')]


def result(predictions, divergence=None, ids=(4, 7)):
  tokens = {
    'student': [np.arange(len(said.split())) for said in predictions],
    'gold': [np.arange(2), np.arange(1)],
  }
  along = {
    f'forward_kl_{source}': [np.full(len(row), divergence) for row in rows]
    for source, rows in tokens.items()
  }
  return loop.score_texts(
    predictions,
    REFERENCES,
    ('exact_match',),
    inputs=['<x>', 'y\u2028'],
    example_id=ids,
    resamples=2,
    ended=np.array([True, False]),
    tokens=tokens,
    divergences=along if divergence is not None else {},
  )


def pieces(ids):
  return [f'p{i}' for i in ids]


def write(path, results, **options):
  examples.write_examples(path, results, pieces, **options)
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def test_a_line_has_every_systems_words_scores_and_tokens(tmp_path):
  systems = {
    'teacher': result(['a b', 'e f']),
    'student after': result(['a b c', 'd'], 0.25),
  }
  first, second = write(tmp_path / 'e.jsonl', systems, browse=1)
  assert (first['id'], first['input']) == (4, '<x>')
  assert second['references'] == ['c', 'd']
  assert first['gold_tokens'] == ['p0', 'p1']
  teacher, student = first['responses'].values()
  assert teacher == {
    'text': 'a b',
    'scores': {'exact_match': 100.0},
    'length': 2,
    'ended': True,
    'tokens': ['p0', 'p1'],
  }
  assert student['forward_kl'] == [0.25] * 3
  assert student['gold'] == {'forward_kl': [0.25] * 2}
  # Beyond the first examples there are words alone.
  assert 'gold_tokens' not in second
  assert second['responses']['student after'] == {
    'text': 'd',
    'scores': {'exact_match': 100.0},
    'length': 1,
    'ended': False,
  }


def test_systems_that_were_there_stay_where_the_examples_are_the_same(tmp_path):
  path = tmp_path / 'e.jsonl'
  write(path, {'before': result(['a', 'b']), 'after': result(['a b', 'c'])})
  first, _ = write(path, {'after': result(['z', 'z'])})
  assert list(first['responses']) == ['before', 'after']
  assert first['responses']['before']['text'] == 'a'
  assert first['responses']['after']['text'] == 'z'
  first, _ = write(path, {'after': result(['z', 'z'], ids=(5, 7))})
  assert list(first['responses']) == ['after']


def test_what_is_no_number_is_null(tmp_path):
  (first, _) = write(tmp_path / 'e.jsonl', {'s': result(['a', ''], np.inf)})
  assert first['responses']['s']['forward_kl'] == [None]


def test_texts_that_nobody_decoded_have_no_tokens(tmp_path):
  texts = loop.score_texts(['a b', 'x'], REFERENCES, ('exact_match',))
  first, _ = write(tmp_path / 'e.jsonl', {'file': texts})
  assert set(first['responses']['file']) == {'text', 'scores'}
