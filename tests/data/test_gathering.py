"""Good examples are told from bad ones, whose number never gets lost."""

import json

import pytest

from kdjax.data import gathering, tasks
from kdjax.data.tasks import Example

GOOD = {'q': 'why', 'a': 'so', 'n': 'one'}


@pytest.fixture
def gather(tmp_path):
  """Gathers rows of a local file."""

  def run(rows, on_bad_example='skip', limit=None, **columns):
    path = tmp_path / 'rows.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    columns = {'target': 'a', **columns}
    task = tasks.get('file', path=str(path), input='q', **columns)
    return gathering.gather(
      task, 'train', task.format, limit=limit, on_bad_example=on_bad_example
    )

  return run


def test_good_rows_leave_nothing_out(gather):
  examples, left_out = gather([GOOD, GOOD], 'error')
  assert [e.id for e in examples] == ['0', '1'] and not left_out


def test_rows_keep_their_numbers(gather):
  rows = [GOOD, {'q': 'why'}, GOOD, {**GOOD, 'q': ''}, GOOD]
  examples, left_out = gather(rows)
  assert [e.id for e in examples] == ['0', '2', '4']
  assert left_out.counts == {
    "nothing in the column 'a'": 1,
    "empty text in the column 'q'": 1,
  }
  assert left_out.places["nothing in the column 'a'"] == ['line 2']
  examples, left_out = gather(rows, limit=3)
  assert [e.id for e in examples] == ['0', '2'] and len(left_out) == 1


def test_the_error_says_where_why_how_many_more_and_what_helps(gather):
  with pytest.raises(ValueError) as error:
    gather([GOOD, {**GOOD, 'q': None}, {**GOOD, 'a': ' '}], 'error')
  message = str(error.value)
  for part in (
    "rows.jsonl, line 2: nothing in the column 'q'; its columns are q, a, n",
    '2 bad examples in all',
    "1 empty text in the column 'a' (line 3)",
    "task.on_bad_example='skip'",
  ):
    assert part in message


@pytest.mark.parametrize('choice', gathering.CHOICES)
def test_a_column_that_no_row_has_is_always_an_error(gather, choice):
  with pytest.raises(ValueError, match='none of its 2 rows.*columns are q, n'):
    gather([{'q': 'why', 'n': 1}] * 2, choice)


def test_the_later_of_two_examples_of_one_id_goes(gather):
  rows = [GOOD, {**GOOD, 'n': 'two'}, {**GOOD, 'q': 'who'}]
  examples, left_out = gather(rows, id='n')
  assert [(e.id, e.inputs) for e in examples] == [
    ('one', 'why'),
    ('two', 'why'),
  ]
  assert left_out.places == {'an id that an earlier example has': ['line 3']}
  with pytest.raises(ValueError, match="line 3.*'one', as line 1 has"):
    gather(rows, 'error', id='n')
  # One that is bad itself has taken no id.
  examples, left_out = gather([{**GOOD, 'a': ''}, GOOD], id='n')
  assert [e.id for e in examples] == ['one'] and len(left_out) == 1


class Rows:
  """A source of a user's own."""

  splits = ('train',)

  def __init__(self, rows):
    self._rows = rows

  def name(self, split):
    return f'my {split}'

  def rows(self, split):
    return self._rows

  def identity(self, split):
    return str(self._rows)


def own(rows, form, **options):
  settings = {
    'name': 'own',
    'metrics': (),
    'max_prompt_tokens': 9,
    'max_response_tokens': 9,
  }
  return tasks.Task(source=Rows(rows), format=form, **settings, **options)


def test_examples_of_a_users_task_are_looked_at():
  def form(row, index):
    for i, part in enumerate(row['parts']):
      yield Example(f'{index}/{i}', part, 'so', ('so',))

  rows = [{'parts': ['a', '', 'b']}, {}, {'parts': None}, {'parts': ['\0']}]
  found, left_out = gathering.gather(
    own(rows, form), 'train', form, on_bad_example='skip'
  )
  assert [e.id for e in found] == ['0/0', '0/2']
  assert left_out.counts == {
    'empty text in the prompt': 1,
    'not of the form that the task reads': 2,
    'a NUL character in the prompt': 1,
  }
  with pytest.raises(ValueError, match='my train, row 0: empty text'):
    gathering.gather(own(rows, form), 'train', form)


def test_empty_prompts_of_tasks_that_have_none():
  def form(row, index):
    yield Example(str(index), '', row['text'], (row['text'],))

  task = own([{'text': 'so'}], form, prompted=False)
  found, left_out = gathering.gather(task, 'train', form)
  assert len(found) == 1 and not left_out


def test_labels_are_of_all_or_of_none():
  def form(row, index):
    yield Example(str(index), 'why', row['a'])

  rows = [{'a': 'so'}, {'a': None}, {'a': 'thus'}]
  task = own(rows, form)
  found, left_out = gathering.gather(task, 'train', form, on_bad_example='skip')
  assert [e.id for e in found] == ['0', '2']
  assert left_out.places == {"no 'target', which others have": ['row 1']}
  with pytest.raises(ValueError, match='row 1: .*label all examples, or none'):
    gathering.gather(task, 'train', form)
  found, left_out = gathering.gather(own(rows[1:2], form), 'train', form)
  assert found[0].target is None and not left_out
