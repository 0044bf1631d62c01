"""Promise 11, of caches: whatever stands in them, data or one clear error.

No crash, no hang, nothing unpickled, and no file opened beside the cache.
"""

import contextlib
import json
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
import pytest
from hypothesis import strategies as st

from kdjax import checksums, types
from kdjax.data import examples as examples_lib
from kdjax.data import manifests, responses, tokens

SIZE, K = 9, 2
OPENED, UNPICKLED = [], []
_WATCHED = []


def _hook(event, args):
  # Hooks stay for the life of the process: this one is idle but in `watched`.
  if _WATCHED and event == 'open' and isinstance(args[0], (str, bytes)):
    OPENED.append(args[0])
  elif _WATCHED and event == 'pickle.find_class':
    UNPICKLED.append(args)


@pytest.fixture(scope='module', autouse=True)
def hook():
  sys.addaudithook(_hook)


@contextlib.contextmanager
def watched(directory):
  """Holds that the block opens no file beside a directory, and is quick."""
  OPENED.clear()
  _WATCHED.append(directory)
  start = time.monotonic()
  try:
    yield
  finally:
    _WATCHED.pop()
  assert time.monotonic() - start < 20
  assert not UNPICKLED
  for path in OPENED:
    path = pathlib.Path(path if isinstance(path, str) else path.decode())
    source = path.suffix in ('.py', '.pyc')  # of a traceback, or imported late
    assert source or path.resolve().is_relative_to(directory), path


def make(count=4):
  names = [f'n{i}' for i in range(count)]
  return examples_lib.Examples(
    task='toy',
    split='train',
    vocabulary_fingerprint='f',
    ids=examples_lib.Texts.from_strings(names),
    inputs=examples_lib.Texts.from_strings(names),
    references=examples_lib.References.from_lists([['x'], [], ['y', 'z'], []]),
    prompts=examples_lib.Ragged.from_rows([[1, i % 9] for i in range(count)]),
  )


def fill(directory):
  writer = responses.Writer(
    directory,
    make(),
    model={'role': 'teacher'},
    sampling={},
    vocabulary_size=SIZE,
    num_shards=2,
    top_logprobs=K,
  )
  for shard, rows in writer.pending():
    top = types.TopK(
      np.tile([0, 1], (2, 1)), np.full((2, K), -1.0), np.full(2, -2.0)
    )
    said = [[3, 4]] * len(rows)
    writer.write(shard, said, ['t'] * len(rows), [top] * len(rows))


def learn(directory):
  """Whether a cache was read; raises nothing but what a user is told."""
  try:
    found = responses.attach_teacher(
      make(),
      directory,
      max_response_tokens=3,
      vocabulary_size=SIZE,
      model={'role': 'teacher'},
      logprobs=True,
    )
    top = found.teacher_logprobs.pad(np.arange(4), 3)
  except (ValueError, OSError) as error:
    assert str(error)
    return False
  assert all((row >= 0).all() and (row < SIZE).all() for row in found.teacher)
  assert ((top.ids >= 0) & (top.ids < SIZE)).all()
  assert not any(np.isnan(x).any() for x in (top.logprobs, top.tail))
  return True


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  directory = tmp_path_factory.mktemp('whole')
  fill(directory)
  return {path.name: path.read_bytes() for path in directory.iterdir()}


@contextlib.contextmanager
def copied(contents):
  with tempfile.TemporaryDirectory() as folder:
    directory = pathlib.Path(folder).resolve()
    for name, content in contents.items():
      (directory / name).write_bytes(content)
    yield directory


# What JSON can say, and what Python's reader takes besides.
NUMBERS = st.one_of(
  st.integers(-3, 12),
  st.integers(),
  st.sampled_from([2**31, 2**63, 2**64, 10**9, 10**30, -1, -(2**63)]),
  st.floats(),
)
TEXTS = st.one_of(
  st.text(max_size=8),
  st.sampled_from(
    ['../../../etc/passwd', '/etc/passwd', '\0', '\ud800', '\u2028', 'n0', '']
  ),
)
VALUES = st.recursive(
  st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
  lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)
  ),
  max_leaves=12,
)
JUNK = st.one_of(
  st.binary(max_size=200),
  VALUES.map(lambda value: json.dumps(value).encode()),
  st.integers(1, 10**5).map(lambda n: b'[' * n),
  st.integers(1, 10**4).map(lambda n: b'{"a":' * n),
  st.just(b'9' * 5000),
)


def places(tree, path=()):
  """Yields where something stands in what JSON gave."""
  yield path
  if isinstance(tree, dict | list):
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in pairs:
      yield from places(value, (*path, key))


def put(tree, path, value):
  if not path:
    return value
  copy = dict(tree) if isinstance(tree, dict) else list(tree)
  copy[path[0]] = put(copy[path[0]], path[1:], value)
  return copy


def altered(data, content):
  """A record with other values in some places, and a checksum that is right."""
  content = dict(content)
  for _ in range(data.draw(st.integers(1, 3))):
    path = data.draw(st.sampled_from(list(places(content))[1:]))
    content = put(content, path, data.draw(VALUES))
  if data.draw(st.booleans()):
    content.pop(data.draw(st.sampled_from(sorted(content))))
  return content


def test_any_bytes_in_any_file(whole, fuzz):
  def test(name, junk):
    with copied({**whole, name: junk}) as directory, watched(directory):
      learn(directory)

  files = st.sampled_from(sorted(whole))
  fuzz(11, 'any bytes in a file of a cache', test, files, JUNK, quick=150,
       often=5_000)  # fmt: skip


def test_any_values_under_a_checksum_that_is_right(whole, fuzz):
  """Whoever forges a record can forge its checksum."""

  def test(data):
    name = data.draw(st.sampled_from([n for n in whole if n.endswith('.json')]))
    with copied(whole) as directory:
      record = checksums.read_record(directory / name)
      checksums.write_record(directory / name, altered(data, record))
      if name == manifests.NAME and data.draw(st.booleans()):
        rekey(directory)
      with watched(directory):
        learn(directory)

  fuzz(11, 'forged manifests and records of a cache', test, st.data(),
       quick=150, often=5_000)  # fmt: skip


def rekey(directory):
  """Has all shards say that they are a forged manifest's."""
  manifest = checksums.read_record(directory / manifests.NAME)
  for path in directory.glob('responses-*.json'):
    record = checksums.read_record(path)
    record['key'] = checksums.digest(manifest.get('key'))
    checksums.write_record(path, record)


LINE = {'id': 'n0', 'prompt': 'p', 'tokens': [1, 2], 'text': 't'}


def test_any_lines_and_tables_under_checksums_that_are_right(whole, fuzz):
  def forge(data, content):
    lines = content.strip(b'\n').split(b'\n')
    i = data.draw(st.integers(0, len(lines) - 1))
    kind = data.draw(st.sampled_from(['junk', 'value', 'twice', 'none']))
    if kind == 'value':
      row = altered(data, json.loads(lines[i]))
      lines[i] = json.dumps(row).encode()
    elif kind == 'junk':
      lines[i] = data.draw(JUNK)
    elif kind == 'twice':
      lines[i] = lines[0]
    else:
      lines = []
    return b'\n'.join([*lines, b''])

  def test(data):
    ending = data.draw(st.sampled_from(['jsonl', 'topk']))
    name = f'responses-00000-of-00002.{ending}'
    with copied(whole) as directory:
      content = whole[name]
      if ending == 'jsonl':
        content = forge(data, content)
      else:
        size = len(content)
        content = data.draw(st.binary(min_size=size, max_size=size))
      path = directory / 'responses-00000-of-00002.json'
      record = checksums.read_record(path)
      known = checksums.write(directory / name, [content])
      record['files'][ending] = known
      checksums.write_record(path, record)
      with watched(directory):
        learn(directory)

  fuzz(11, 'forged texts and tables of a cache', test, st.data(), quick=150,
       often=5_000)  # fmt: skip


def test_a_billion_shards_are_counted_at_once(whole):
  with copied(whole) as directory:
    path = directory / manifests.NAME
    record = checksums.read_record(path)
    record['key'] |= {'shards': 10**9, 'examples': 10**9}
    checksums.write_record(path, record)
    rekey(directory)
    with watched(directory), pytest.raises(FileNotFoundError, match='10{9} sh'):
      responses.attach_teacher(
        make(), directory, max_response_tokens=3, vocabulary_size=SIZE
      )


@pytest.mark.parametrize('kind', ['link', 'pipe', 'folder', 'loop'])
def test_what_is_no_plain_file_is_neither_followed_nor_waited_for(
  kind, whole, cache, tmp_path, tried
):
  for contents, act in ((whole, learn), (cache, read)):
    for name in contents:
      with copied(contents) as directory:
        path = directory / name
        elsewhere = tmp_path / name
        path.replace(elsewhere)
        if kind == 'link':
          path.symlink_to(elsewhere)
        elif kind == 'pipe':
          os.mkfifo(path)
        elif kind == 'folder':
          path.mkdir()
        else:
          path.symlink_to(path)
        with watched(directory):
          assert not act(directory)
  tried(11, f'a {kind} in place of a file of a cache', len(whole) + len(cache))


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  directory = tmp_path_factory.mktemp('tokens') / 'cache'
  tokens.write(directory, make())
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def read(directory):
  try:
    found = tokens.read(directory)
  except (ValueError, OSError) as error:
    assert str(error)
    return False
  for rows in (found.ids, found.inputs, found.references, found.prompts):
    with contextlib.suppress(UnicodeDecodeError):
      assert len(list(rows)) == len(found)
  return True


ARRAYS = st.one_of(
  st.lists(st.integers(-9, 99), max_size=9).map(np.array),
  st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9).map(np.array),
  st.lists(st.floats(), max_size=9).map(np.array),
  st.lists(st.integers(0, 255), max_size=20).map(
    lambda x: np.array(x, np.uint8)
  ),
  st.just(np.array([{}], object)),
  st.just(np.zeros((2, 3), np.int32)),
)
HEADERS = st.one_of(
  st.binary(max_size=200),
  st.sampled_from(['|O', '<i4', '<i8', '|V0', '<f8', '>i8', 'U1', 'i4,i4']).map(
    lambda kind: npy(kind, '(1000000000000,)')
  ),
  st.sampled_from(['(-1,)', '(2**60,)', '()', '"a"', '(1.5,)', '(True,)']).map(
    lambda shape: npy('<i4', shape)
  ),
)


def npy(kind, shape):
  """The bytes of an array file whose header may say anything."""
  text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n"
  header = text.encode()
  return b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header


def test_any_bytes_and_arrays_in_a_cache_of_tokens(cache, fuzz):
  def test(data):
    name = data.draw(st.sampled_from(sorted(cache)))
    with copied(cache) as directory:
      if name == 'header.json':
        record = altered(data, checksums.read_record(directory / name))
        checksums.write_record(directory / name, record)
      elif data.draw(st.booleans()):
        (directory / name).write_bytes(data.draw(JUNK))
      else:
        content = data.draw(st.one_of(ARRAYS, HEADERS))
        if isinstance(content, bytes):
          (directory / name).write_bytes(content)
        else:
          np.save(directory / name, content)
        record = checksums.read_record(directory / 'header.json')
        whole = (directory / name).read_bytes()
        record['files'][name] = checksums.write(directory / name, [whole])
        checksums.write_record(directory / 'header.json', record)
      with watched(directory):
        read(directory)

  fuzz(11, 'forged caches of tokens', test, st.data(), quick=150,
       often=5_000)  # fmt: skip
