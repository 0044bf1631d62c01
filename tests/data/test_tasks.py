"""Tasks ask as the papers do and answer from the right columns."""

import json

import pytest

from kdjax.data import gathering, tasks
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
  'dailydialog': {
    'dialog': [' Hi . ', 'Hello !', ' Tea ? '],
    'act': [1, 1, 2],
    'emotion': [0, 0, 0],
  },
  'dart': {
    'tripleset': [['Rome', 'country', 'Italy'], ['Rome', 'river', 'Tiber']],
    'subtree_was_extended': False,
    'annotations': {'source': ['x', 'y'], 'text': ['In Italy.', 'Rome.']},
  },
  'hh_rlhf': {
    'chosen': '\n\nHuman: Hi\n\nAssistant: A\n\nHuman: B\n\nAssistant: Good',
    'rejected': '\n\nHuman: Hi\n\nAssistant: A\n\nHuman: B\n\nAssistant: Bad',
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


@pytest.mark.parametrize('name', EXPECTED)
def test_raw_prompts(name, tmp_path):
  _, example = first(name, tmp_path, prefix='')
  assert EXPECTED[name][1].endswith(f': {example.inputs}')
  assert ':' not in example.inputs
  _, asked = first(name, tmp_path, prefix='Say: ')
  assert asked == example._replace(inputs=f'Say: {example.inputs}')


def test_dailydialog_answers_adjacent_utterances(tmp_path):
  row = HUB_ROWS['dailydialog']
  task, _ = first('dailydialog', tmp_path)
  assert list(task.format(row, 4)) == [
    tasks.Example('4/1', 'Hi .', 'Hello !', ('Hello !',)),
    tasks.Example('4/2', 'Hello !', 'Tea ?', ('Tea ?',)),
  ]
  longer, _ = first('dailydialog', tmp_path, context=2, prefix='> ')
  inputs = [e.inputs for e in longer.format(row, 4)]
  assert inputs == ['> Hi .', '> Hi .\nHello !']
  assert list(task.format({'dialog': ['alone']}, 0)) == []
  with pytest.raises(ValueError, match='context=0'):
    tasks.get('dailydialog', context=0)


def test_dart_trains_on_every_text_and_judges_by_all(tmp_path):
  splits = {}
  for split in ('train', 'test'):
    task, _ = first('dart', tmp_path, split)
    rows = task.source.rows(split)
    splits[split] = [e for i, r in enumerate(rows) for e in task.format(r, i)]
  inputs = 'Rome : country : Italy | Rome : river : Tiber'
  assert splits['train'] == [
    tasks.Example('0', inputs, 'In Italy.', ('In Italy.',)),
    tasks.Example('1', inputs, 'Rome.', ('Rome.',)),
  ]
  both = ('In Italy.', 'Rome.')
  assert splits['test'] == [tasks.Example('0', inputs, 'In Italy.', both)]


def with_list(name, value):
  """A row with something where the task reads a list."""
  if name == 'dailydialog':
    return {'dialog': value}
  changes = {'dart': {'annotations': {'text': value}}}
  changes['triples'] = {'tripleset': value}
  return {**HUB_ROWS['dart'], **changes[name]}


@pytest.mark.parametrize('split', ['train', 'test'])
@pytest.mark.parametrize('name', ['dailydialog', 'dart', 'triples'])
@pytest.mark.parametrize('value', [None, 'Hey', [], [7, 8], {'a': 'b'}])
def test_a_row_without_its_list_is_counted(name, value, split, tmp_path):
  known = name.replace('triples', 'dart')
  rows = [with_list(name, value), HUB_ROWS[known]]
  content = '\n'.join(json.dumps(row) for row in rows)
  (tmp_path / f'{split}.jsonl').write_text(content)
  task = tasks.get(known, data_dir=str(tmp_path))
  found, left_out = gathering.gather(
    task, split, task.format, on_bad_example='skip'
  )
  assert len(found) == (1 if (known, split) == ('dart', 'test') else 2)
  assert set(sum(left_out.places.values(), [])) == {'line 1'}


def test_hh_rlhf_splits_off_the_last_answers(tmp_path):
  task, example = first('hh_rlhf', tmp_path)
  row = HUB_ROWS['hh_rlhf']
  assert example.inputs.endswith(f'Human: B{task.tail}')
  assert example.inputs + example.target == row['chosen']
  assert example.inputs + example.rejected == row['rejected']
  assert example.references == ('Good',)
  parted = row | {'rejected': '\n\nHuman: C\n\nAssistant: Bad'}
  assert list(task.format(parted, 0)) == []


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


def test_dolly_prompt_is_alpacas():
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
  args = {'file': {'path': 'x', 'input': 'y'}, 'text': {'path': 'x'}}
  for name in tasks.names():
    text.check_names(tasks.get(name, **args.get(name, {})).metrics)


def test_digest_covers_the_modules_of_all_tasks(monkeypatch):
  before = tasks.digest()
  monkeypatch.setattr(tasks, '_BUILDERS', dict(tasks._BUILDERS))
  # A task of this file: the digest now changes with it.
  tasks.register(first)
  assert tasks.digest() != before


def test_unknown_names_and_arguments():
  with pytest.raises(ValueError, match='no split .dev., only train, val'):
    tasks.get('debsum').check_split('dev')
  with pytest.raises(ValueError, match='no task .xsun.; there are .*xsum'):
    tasks.get('xsun')
  with pytest.raises(ValueError, match="'repeat'.*repeats"):
    tasks.get('debsum_windows', repeat=2)
