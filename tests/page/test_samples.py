"""Examples are aligned by their id, rounded, and as many as fit."""

import json

from kdjax.page import samples
from tests.page import folders


def _sources(folder, *names):
  return {name: (folder, name) for name in names}


def test_systems_of_several_files_are_aligned_by_id(tmp_path):
  first = folders.example_lines({'teacher': 20.0}, 4)
  second = folders.example_lines({'student after': 20.0}, 4, seed=1)
  folders.write_lines(tmp_path / 'a' / 'examples.jsonl', first)
  folders.write_lines(tmp_path / 'b' / 'examples.jsonl', second[:0:-1])
  found = samples.collect(
    {
      'teacher': (tmp_path / 'a', 'teacher'),
      'ours': (tmp_path / 'b', 'student after'),
      'lost': (tmp_path / 'c', 'student after'),
    }
  )
  assert [each['id'] for each in found['examples']] == [100, 101, 102, 103]
  assert list(found['responses']) == ['teacher', 'ours']
  assert found['responses']['ours'][0] is None
  texts = [each and each['text'] for each in found['responses']['ours']]
  said = [line['responses']['student after']['text'] for line in second]
  assert texts == [None, *said[1:]]


def test_divergences_are_thousandths_and_unknown_ones_none(tmp_path):
  (line,) = folders.example_lines({'student after': 20.0}, 1)
  response = line['responses']['student after']
  response |= {'tokens': ['a', 'b'], 'forward_kl': [0.12345, None]}
  folders.write_lines(tmp_path / 'examples.jsonl', [line])
  found = samples.collect(_sources(tmp_path, 'student after'))
  small = found['responses']['student after'][0]
  assert small['forward_kl'] == [123, None]
  gold = response['gold']['reverse_kl']
  assert small['gold']['reverse_kl'] == [round(1000 * x) for x in gold]
  assert found['scores'] == ['rouge2', 'ter']


def test_a_page_holds_what_fits_and_says_of_how_many(tmp_path):
  names = ('teacher', 'student after')
  lines = folders.example_lines(dict.fromkeys(names, 20.0), 300)
  folders.write_lines(tmp_path / 'examples.jsonl', lines)
  sources = _sources(tmp_path, *names)
  assert len(samples.collect(sources)['examples']) == samples.EXAMPLES
  found = samples.collect(sources, budget=20_000)
  assert found['total'] == 300 and 10 < len(found['examples']) < 100
  assert len(json.dumps(found)) < 25_000
  assert len(samples.collect(sources, budget=0)['examples']) == 5


def test_texts_that_no_model_decoded_have_no_tokens(tmp_path):
  said = {'text': 'a', 'scores': {'rouge2': None}}
  line = {'id': 1, 'input': 'x', 'references': ['a'], 'responses': {'a': said}}
  folders.write_lines(tmp_path / 'examples.jsonl', [line])
  found = samples.collect(_sources(tmp_path, 'a'))
  assert found['responses']['a'] == [
    {'text': 'a', 'length': None, 'ended': True, 'scores': [None]}
  ]
  assert found['examples'][0]['tokens'] is None


def test_without_files_there_are_no_samples(tmp_path):
  assert samples.collect(_sources(tmp_path, 'teacher')) is None
