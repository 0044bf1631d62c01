"""Tasks ask as the papers do and answer from the right columns."""

import json

import pytest

from kdjax.data import tasks
from kdjax.evaluation import text

HUB_ROWS = {
  'xsum': {'document': 'Long.', 'summary': 'Short.', 'id': '7'},
  'cnn_dailymail': {'article': 'Long.', 'highlights': 'Short.', 'id': '7'},
  'wmt14_ende': {'translation': {'de': 'Haus', 'en': 'house'}},
  'wmt16_enro': {'translation': {'ro': 'casă', 'en': 'house'}},
  'gsm8k': {'question': 'How many?', 'answer': '1+1=<<1+1=2>>2\n#### 2'},
  'dolly': {
    'instruction': 'Say it.',
    'context': 'Hi',
    'response': 'Hello',
    'category': 'x',
  },
}
EXPECTED = {
  'xsum': ('7', 'summarize: Long.', 'Short.'),
  'cnn_dailymail': ('7', 'summarize: Long.', 'Short.'),
  'wmt14_ende': ('0', 'translate English to German: house', 'Haus'),
  'wmt16_enro': ('0', 'translate English to Romanian: house', 'casă'),
}


def first(name, tmp_path, split='train', **args):
  """The first example of a local copy of a hub data set."""
  row = json.dumps(HUB_ROWS[name])
  (tmp_path / f'{split}.jsonl').write_text(row + '\n', encoding='utf-8')
  task = tasks.get(name, data_dir=str(tmp_path), **args)
  row = task.source.rows(split)[0]
  return task, next(iter(task.format(row, 0)))


@pytest.mark.parametrize('name', EXPECTED)
def test_hub_schema(name, tmp_path):
  _, example = first(name, tmp_path)
  assert (example.id, example.inputs, example.target) == EXPECTED[name]
  assert example.references == (example.target,)


def test_gsm8k_shots(tmp_path):
  task, example = first('gsm8k', tmp_path)
  assert example.inputs.count('Q: ') == 5
  assert example.inputs.endswith('Q: How many?\nA:')
  assert example.inputs.endswith(task.tail)
  assert example.target == ' 1+1=2 The answer is 2.'
  assert example.references == (HUB_ROWS['gsm8k']['answer'],)
  _, plain = first('gsm8k', tmp_path, shots=0)
  assert plain.inputs == 'Q: How many?\nA:'
  assert plain.target == ' 1+1=2\n#### 2'
  chat = next(iter(task.chat_format(HUB_ROWS['gsm8k'], 0)))
  assert (chat.inputs, chat.target) == ('How many?', '1+1=2\n#### 2')
  with pytest.raises(ValueError, match='shots=5'):
    tasks.get('gsm8k', shots=5)


def test_dolly_prompt_is_alpacas(tmp_path):
  row = HUB_ROWS['dolly']
  task = tasks.get('dolly')
  example = next(iter(task.format(row, 0)))
  assert example.inputs.startswith('Below is an instruction that describes a')
  assert '### Instruction:\nSay it.\n\n### Input:\nHi' in example.inputs
  assert example.inputs.endswith(task.tail)
  bare = next(iter(task.format(dict(row, context=''), 0)))
  assert '### Input' not in bare.inputs
  assert task.source.splits == ('train', 'test', 'validation')


@pytest.mark.parametrize('shots', [0, 4])
def test_gsm8k_metrics_accept_its_own_targets(shots, tmp_path):
  task, example = first('gsm8k', tmp_path, shots=shots)
  for metric in task.metrics:
    scores = text.score(metric, [example.target], [example.references])
    assert scores.value == 100


def test_metrics_exist():
  args = {'file': {'path': 'x', 'input': 'y'}}
  for name in tasks.names():
    text.check_names(tasks.get(name, **args.get(name, {})).metrics)


@pytest.mark.parametrize('name', ['debsum', 'g2p'])
def test_embedded_splits_share_no_example(name):
  task = tasks.get(name)
  rows = {s: task.source.rows(s) for s in ('validation', 'test')}
  field = 'source' if name == 'debsum' else 'word'
  validation, test = ({r[field] for r in rows[s]} for s in rows)
  assert validation and test and not validation & test


def test_debsum_windows_are_copied_and_deterministic():
  task = tasks.get('debsum_windows', repeats=3, first_words=20)
  row = {'id': 'foo', 'document': ' '.join(f'w{i}' for i in range(100))}
  examples = list(task.format(row, 5))
  assert examples == list(task.format(row, 5))
  assert [e.target for e in examples] != [e.target for e in task.format(row, 6)]
  assert [e.id for e in examples] == ['foo/0', 'foo/1', 'foo/2']
  within = ' '.join(row['document'].split()[:20])
  for example in examples:
    assert example.target in within
    assert 8 <= len(example.target.split()) <= 20
  short = next(iter(task.format({'id': 'x', 'document': 'two words'}, 0)))
  assert short.target == 'two words'


def test_g2p_has_all_pronunciations():
  row = {'word': 'cat', 'pronunciations': ['K AE T', 'K AH T']}
  example = next(iter(tasks.get('g2p').format(row, 0)))
  sounds = ('K AE T', 'K AH T')
  assert example == tasks.Example('cat', 'c a t', 'K AE T', sounds)


def test_file_columns():
  task = tasks.get('file', path='x.jsonl', input='q', target='a', prefix='> ')
  row = {'q': 'why', 'a': ['so', 'thus']}
  example = next(iter(task.format(row, 3)))
  assert example == tasks.Example('3', '> why', 'so', ('so', 'thus'))
  with pytest.raises(ValueError, match="column 'a'; its columns are q, b"):
    list(task.format({'q': 'why', 'b': 'so'}, 3))
  unlabelled = tasks.get('file', path='x.jsonl', input='q')
  assert next(iter(unlabelled.format(row, 0))).target is None


def test_unknown_names_and_arguments():
  with pytest.raises(ValueError, match='no split .dev., only train, val'):
    tasks.get('debsum').check_split('dev')
  with pytest.raises(ValueError, match='no task .xsun.; there are .*xsum'):
    tasks.get('xsun')
  with pytest.raises(ValueError, match="'repeat'.*repeats"):
    tasks.get('debsum_windows', repeat=2)
