"""Promise 9: bad data stops a run or is left out and counted, never silent."""

import gzip
import io
import json
import logging
import lzma
import time

import pytest
from hypothesis import strategies as st

from kdjax.data import faults, gathering, loading, tasks

PROMISE = 9
GOOD = [{'id': f'n{i}', 'q': f'a {i}', 'a': 'b'} for i in range(4)]


def line(**changes):
  return json.dumps({**GOOD[0], 'id': 'bad', **changes}).encode()


# A line by what is wrong with it.
LINES = {
  'bad UTF-8': b'{"id": "bad", "q": "\xff", "a": "b"}',
  'a NUL byte': b'{"id": "bad", "q": "a\0", "a": "b"}',
  "a NUL character in the column 'q'": line(q='a\0'),
  "a lone surrogate in the column 'q'": line(q='\ud800'),
  'not JSON': b'{"id": "bad", "q": "a", "a":',
  'not an object, {...}': b'["a", "b"]',
  "nothing in the column 'q'": b'{"id": "bad", "a": "b"}',
  "nothing in the column 'a'": line(a=None),
  "nothing in the column 'id'": line(id=None),
  "no text in the column 'q'": line(q=3),
  "no text in the column 'a'": line(a={'text': 'b'}),
  "empty text in the column 'q'": line(q=''),
  "empty text in the column 'a'": line(a=' \n'),
  "an empty list in the column 'a'": line(a=[]),
  'an id that an earlier example has': line(id='n0'),
}


@pytest.fixture
def load(tmp_path):
  """Loads a file's content as a run does, tokens and all."""

  def run(content, ending='jsonl', **options):
    path = tmp_path / f'rows.{ending}'
    path.write_bytes(content)
    columns = {'input': 'q', 'target': 'a', 'id': 'id'}
    return loading.load(
      tasks.get('file', path=str(path), **columns),
      'train',
      'g2p',
      max_prompt_tokens=99,
      max_response_tokens=99,
      cache_dir=tmp_path / 'cache',
      **options,
    )

  return run


def around(bad):
  """Returns a file with a bad line in the middle, and the good ids."""
  lines = [json.dumps(row).encode() for row in GOOD]
  return b'\n'.join([*lines[:2], bad, *lines[2:]]), [r['id'] for r in GOOD]


@pytest.mark.parametrize('reason', LINES)
def test_every_kind_stops_the_run_or_is_counted(reason, load, caplog, tried):
  content, names = around(LINES[reason])
  with pytest.raises(ValueError) as error:
    load(content)
  for part in ('rows.jsonl, line 3: ', reason, "on_bad_example='skip'"):
    assert part in str(error.value)
  for _ in range(2):  # made, then read from the cache of tokens
    faults.warn.cache_clear()
    caplog.clear()
    examples = load(content, on_bad_example='skip')
    assert list(examples.ids) == names
    assert examples.left_out.counts == {reason: 1}
    assert f'left out 1 {reason} (line 3)' in caplog.text
  tried(PROMISE, 'a kind of bad line stops or is counted', 1)


@pytest.mark.parametrize('field', ['a,b', 'a"', 'a\xff', ''])
def test_csv(field, load):
  lines = ['id,q,a', 'n0,a 0,b', f'n1,{field},b', 'n2,a 2,b']
  content = '\n'.join(lines).encode('latin-1')
  quoted = content.replace(b'a"', b'"a"x')
  with pytest.raises(ValueError, match='rows.csv, line 3: '):
    load(quoted, 'csv')
  examples = load(quoted, 'csv', on_bad_example='skip')
  assert list(examples.ids) == ['n0', 'n2']
  assert len(examples.left_out) == 1


def test_numbers_beyond_all_floats_are_labels(load):
  content, names = around(line(a=10**400))
  examples = load(content, on_long='truncate')
  assert list(examples.ids) == [*names[:2], 'bad', *names[2:]]


@pytest.mark.parametrize('zone, last', [(None, 2**62), ('Mars/Phobos', 0)])
def test_times_that_python_has_not(zone, last, load):
  import pyarrow
  import pyarrow.parquet

  # In a column that the task doesn't read.
  when = pyarrow.array([None, None, last], pyarrow.timestamp('us', tz=zone))
  table = pyarrow.Table.from_pylist(GOOD[:3]).append_column('when', when)
  pyarrow.parquet.write_table(table, file := io.BytesIO())
  reason = "an unreadable value in the column 'when'"
  with pytest.raises(ValueError, match=f'rows.parquet, row 2: {reason}'):
    load(file.getvalue(), 'parquet')
  examples = load(file.getvalue(), 'parquet', on_bad_example='skip')
  assert list(examples.ids) == ['n0', 'n1']
  assert examples.left_out.counts == {reason: 1}


def test_what_is_no_example_stops_the_run_always(load, tried):
  rows = b'\n'.join(json.dumps(row).encode() for row in GOOD)
  damaged = {
    'jsonl.gz': gzip.compress(rows)[:-9],
    'jsonl.xz': lzma.compress(rows)[:-9],
    'parquet': b'PAR1 and no more',
    'csv': b'id,q,a\nn0,"a,b\n',
    'jsonl': rows.replace(b'"a"', b'"answer"'),
  }
  for choice in gathering.CHOICES:
    for ending, content in damaged.items():
      with pytest.raises(ValueError, match=f'rows.{ending}') as error:
        load(content, ending, on_bad_example=choice)
      assert '\n' not in str(error.value)
      tried(PROMISE, 'a file that is damaged as a whole', 1)
    assert 'its columns are id, q, answer' in str(error.value)


def parts():
  """Draws lines: a good one's text, or what is wrong with a bad one."""
  text = st.text(st.characters(exclude_categories=['Cs', 'Cc']), min_size=1)
  words = text.filter(str.strip)
  return st.lists(
    st.one_of(
      st.tuples(words, words),
      st.sampled_from(sorted(LINES)),
      st.binary(min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=12,
  )


def good(content, seen):
  """Whether a line is an example, by the definition's slow twin."""
  try:
    row = json.loads(content.decode('utf-8'))
    fields = [row[name] for name in ('id', 'q', 'a')]
    ''.join(fields).encode('utf-8')
  except Exception:  # In whatever way it isn't one.
    return False
  whole = all(x.strip() and '\0' not in x for x in fields)
  return whole and row['id'] not in seen


def test_none_is_lost(fuzz, tmp_path):
  """Loaded and left out are all rows, and the loaded ones are the good ones."""
  path = tmp_path / 'rows.jsonl'
  columns = {'input': 'q', 'target': 'a', 'id': 'id'}
  task = tasks.get('file', path=str(path), **columns)

  def test(drawn):
    lines = [b'']  # a file's first bytes may be the mark of an encoding
    for i, part in enumerate(drawn):
      if isinstance(part, tuple):
        row = {'id': f'n{i}', 'q': part[0], 'a': part[1]}
        lines.append(json.dumps(row, ensure_ascii=bool(i % 2)).encode())
      else:
        lines.append(LINES[part] if isinstance(part, str) else part)
    content = b'\n'.join(lines)
    path.write_bytes(content)
    seen, rows = {}, [x for x in io.BytesIO(content) if x.strip()]
    for each in rows:
      if good(each, seen):
        row = json.loads(each)
        seen[row['id']] = row['q'], row['a']
    try:
      found, left_out = gathering.gather(
        task, 'train', task.format, on_bad_example='skip'
      )
    except ValueError as error:
      assert not seen, error
      return
    assert {e.id: (e.inputs, e.target) for e in found} == seen
    assert len(found) + len(left_out) == len(rows)

  fuzz(
    PROMISE,
    'a file of good and bad lines: none lost, none taken for the other',
    test,
    parts(),
    quick=60,
    often=20_000,
  )


@pytest.mark.slow
@pytest.mark.parametrize('text', ['the mail server ', 'x', '€', '\u0301'])
def test_a_line_of_10_mb_is_one_like_another(text, load, tried):
  text *= 10_000_000 // len(text.encode())
  rows = [GOOD[0], {**GOOD[1], 'q': text}]
  content = b'\n'.join(json.dumps(row).encode() for row in rows)
  # Loads TensorFlow and the tokenizer, so that they aren't timed.
  load(content[: content.index(b'\n')])
  start = time.monotonic()
  whole = load(content, on_long='truncate')
  assert time.monotonic() - start < 60
  assert list(whole.ids) == ['n0', 'n1']
  tried(PROMISE, 'a line of 10 MB', 1)


@pytest.mark.slow
def test_a_whole_run_leaves_out_and_says_so(
  command, tiny_data, tmp_path, tried
):
  for split in ('train', 'validation', 'test'):
    lines = (tiny_data / f'{split}.jsonl').read_bytes().splitlines()
    lines[1:1] = [b'{"spelling": "\xff", "sounds": "AH"}', b'{']
    (tmp_path / f'{split}.jsonl').write_bytes(b'\n'.join(lines))
  path = f'--config.task.args.path={tmp_path}/{{split}}.jsonl'
  flags = [path, '--config.steps=2', f'--workdir={tmp_path}/run']
  _, errors = (process := command(*flags)).communicate(timeout=120)
  last = errors.strip().splitlines()[-1]
  assert process.returncode == 1
  assert last.startswith('kdjax: ') and 'train.jsonl, line 2: bad UTF' in last
  flags.append('--config.task.on_bad_example=skip')
  _, errors = (process := command(*flags)).communicate(timeout=120)
  assert process.returncode == 0, errors
  told = 'left out 1 bad UTF-8 (line 2), 1 not JSON (line 3)'
  assert all(f'file/{x}: {told}' in errors for x in ('train', 'test'))
  found = json.loads((tmp_path / 'run/data.json').read_text())
  sizes = {'train': 64, 'validation': 8, 'test': 12}
  for split, size in sizes.items():
    if split in found:
      found[split].pop('sha256', None)
      assert found[split] == {
        'examples': size,
        'left_out': {'bad UTF-8': 1, 'not JSON': 1},
      }
  assert {'train', 'test'} <= set(found)
  tried(PROMISE, 'a run from the command line', 2)


@pytest.mark.slow
def test_bad_test_data_stops_a_run_before_it_trains(
  command, tiny_data, tmp_path
):
  for split in ('train', 'validation', 'test'):
    content = (tiny_data / f'{split}.jsonl').read_bytes()
    bad = b'{\n' if split == 'test' else b''
    (tmp_path / f'{split}.jsonl').write_bytes(content + bad)
  path = f'--config.task.args.path={tmp_path}/{{split}}.jsonl'
  process = command(path, '--config.steps=2', f'--workdir={tmp_path}/run')
  _, errors = process.communicate(timeout=120)
  assert process.returncode == 1
  assert 'test.jsonl, line 13: not JSON' in errors.splitlines()[-1]
  assert not (tmp_path / 'run' / 'metrics.jsonl').exists()


def test_warnings_come_once_a_run(load, caplog):
  content, _ = around(LINES['not JSON'])
  faults.warn.cache_clear()
  with caplog.at_level(logging.WARNING):
    for _ in range(3):
      load(content, on_bad_example='skip')
  assert caplog.text.count('left out') == 1
