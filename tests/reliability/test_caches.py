"""Promise 6: a cache of responses is whole and the one that is wanted, or says.

What is killed, damaged or mixed is noticed, and mended by the same command.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kdjax import checks, generate, types, workdirs
from kdjax.data import examples as examples_lib
from kdjax.data import manifests, responses, tokens

SETTINGS = {
  'generate.temperature': 1.0,
  'generate.shard_size': 2,
  'generate.top_logprobs': 4,
}
SIZE, K = 9, 3


def cached(workdir):
  """The bytes of a cache's files by name; its writer's lock is none of them."""
  paths = [*workdir.glob('responses-*'), *workdir.glob('manifest.json')]
  return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope='module')
def undisturbed(tiny, tmp_path_factory):
  """The cache that a run writes whom nothing happens to."""
  workdir = tmp_path_factory.mktemp('undisturbed')
  overrides = {k.replace('.', '__'): v for k, v in SETTINGS.items()}
  c = checks.validate(tiny(**overrides), 'generate')
  generate.generate(c, str(workdir))
  assert len(list(workdir.glob('*.jsonl'))) == 32
  return workdir


@pytest.fixture
def start(command):
  """Starts the same run as a process of its own."""
  flags = [f'--config.{k}={v}' for k, v in SETTINGS.items()]

  def begin(workdir):
    return command('--mode=generate', f'--workdir={workdir}', *flags)

  return begin


def wait(process, workdir, shards):
  """Waits until a process has written so many shards, or is over."""
  while process.poll() is None:
    if len(list(workdir.glob('responses-*.json'))) >= shards:
      return
    time.sleep(0.0005)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(
  start, undisturbed, tmp_path, tries, tried
):
  rng = random.Random(0)
  count = kills = tries(2, 20)
  # So many at random moments that lie between the shards, or inside of one.
  moments = sorted(rng.randrange(1, 31) for _ in range(kills))
  for shards in moments:
    process = start(tmp_path)
    wait(process, tmp_path, shards)
    time.sleep(rng.random() * 0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kills -= process.returncode == -signal.SIGKILL
  assert not kills
  process = start(tmp_path)
  _, log = process.communicate()
  assert process.returncode == 0, log
  assert cached(tmp_path) == cached(undisturbed)
  tried(6, 'kill -9 at random moments of --mode=generate', count)


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_run_goes_on(
  start, undisturbed, tmp_path, tries, tried
):
  count = tries(1, 5)
  for i in range(count):
    process = start(tmp_path)
    wait(process, tmp_path, 5 * i + 1)
    # As on a full disk, the system refuses to write more of a file.
    limit = (100 + 50 * i, resource.RLIM_INFINITY)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limit)
    _, log = process.communicate()
    assert process.returncode == os.EX_IOERR
    last = log.strip().split('\n')[-1]
    assert last.startswith('kdjax: ') and 'File too large' in last, log
    assert f'{tmp_path}/responses-' in last
    assert not list(tmp_path.glob('*.partial'))
  _, log = start(tmp_path).communicate()
  assert cached(tmp_path) == cached(undisturbed), log
  tried(5, 'a disk that is full while a cache is written', count)


@pytest.mark.slow
def test_a_second_writer_is_refused_and_changes_nothing(start, tmp_path):
  with workdirs.locked(tmp_path):
    process = start(tmp_path)
    _, log = process.communicate()
  assert process.returncode == 1
  assert f'another run writes into {tmp_path}' in log
  assert not cached(tmp_path)


def make(count=10):
  names = [f'n{i}' for i in range(count)]
  return examples_lib.Examples(
    task='toy',
    split='train',
    vocabulary_fingerprint='f',
    ids=examples_lib.Texts.from_strings(names),
    inputs=examples_lib.Texts.from_strings(names),
    references=examples_lib.References.from_lists([[]] * count),
    prompts=examples_lib.Ragged.from_rows([[1, i % 9] for i in range(count)]),
  )


def fill(directory):
  """Writes what is missing of a small cache; returns how many shards."""
  writer = responses.Writer(
    directory,
    make(),
    model={'role': 'teacher', 'weights': 'w'},
    sampling={},
    vocabulary_size=SIZE,
    num_shards=4,
    top_logprobs=K,
  )
  pending = writer.pending()
  for shard, rows in pending:
    tokens = [[int(i) % SIZE] * (1 + i % 3) for i in rows]
    top = [
      types.TopK(
        np.tile(np.arange(K) + i % 2, (len(said), 1)),
        np.full((len(said), K), np.log(0.2) - i / 100),
        np.full(len(said), np.log(0.4)),
      )
      for i, said in zip(rows, tokens)
    ]
    writer.write(shard, tokens, [str(each) for each in tokens], top)
  return len(pending)


def learn(directory):
  """All that training reads of a cache."""
  found = responses.attach_teacher(
    make(),
    directory,
    max_response_tokens=3,
    vocabulary_size=SIZE,
    logprobs=True,
  )
  top = found.teacher_logprobs.pad(np.arange(10), 3)
  return [
    [row.tolist() for row in found.teacher],
    *(getattr(top, name).tolist() for name in ('ids', 'logprobs', 'tail')),
  ]


def flip(rng, path, unused):
  content = bytearray(path.read_bytes())
  content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  path.write_bytes(content)


def truncate(rng, path, unused):
  content = path.read_bytes()
  path.write_bytes(content[: rng.randrange(len(content))])


def remove(unused, path, unused_others):
  path.unlink()


def swap(rng, path, others):
  other = rng.choice(others)
  mine, theirs = path.read_bytes(), other.read_bytes()
  path.write_bytes(theirs)
  other.write_bytes(mine)


def double(rng, path, others):
  shutil.copy(rng.choice(others), path)


def misplace(rng, path, others):
  """A whole shard in another one's place."""
  for ending in ('json', 'jsonl', 'topk'):
    shutil.copy(
      rng.choice(others).with_suffix(f'.{ending}'),
      path.with_suffix(f'.{ending}'),
    )


@pytest.mark.parametrize(
  'fault', [flip, truncate, remove, swap, double, misplace]
)
def test_damage_is_noticed_and_mended(fault, tmp_path_factory, tries, tried):
  whole = tmp_path_factory.mktemp('whole')
  assert fill(whole) == 4
  expected, bytes_before = learn(whole), cached(whole)
  rng, count = random.Random(fault.__name__), tries(8, 300)
  for i in range(count):
    directory = tmp_path_factory.mktemp('damaged') / str(i)
    shutil.copytree(whole, directory)
    paths = sorted(directory.glob('responses-*'))
    path = rng.choice(paths)
    others = [p for p in paths if p.suffix == path.suffix and p != path]
    fault(rng, path, others)
    try:
      # A byte of white space that another one took the place of does no harm.
      assert learn(directory) == expected
    except (ValueError, FileNotFoundError) as error:
      assert '--mode=generate again' in str(error)
      assert str(directory) in str(error)
      assert fill(directory) in (1, 2)
    assert cached(directory) == bytes_before or not fill(directory)
    assert learn(directory) == expected
    shutil.rmtree(directory)
  tried(6, f'shards of a cache: {fault.__name__}', count)


def test_a_damaged_manifest_is_mended_by_the_same_settings(
  tmp_path, tries, tried
):
  fill(tmp_path)
  expected, path = learn(tmp_path), tmp_path / manifests.NAME
  whole = path.read_bytes()
  rng, count = random.Random(0), tries(10, 300)
  for i in range(count):
    (flip, truncate)[i % 2](rng, path, None)
    try:
      assert learn(tmp_path) == expected
      continue
    except ValueError as error:
      assert 'Delete it' in str(error) or 'delete it' in str(error)
    with pytest.raises(ValueError, match='manifest.json'):
      fill(tmp_path)
    path.unlink()
    assert fill(tmp_path) == 0
    assert path.read_bytes() == whole
  tried(6, 'a damaged manifest of a cache', count)


def test_files_of_another_run_are_not_mixed_in(tmp_path):
  fill(tmp_path)
  for name in ('responses-00000-of-00009.jsonl', 'responses-copy'):
    stranger = tmp_path / name
    stranger.write_text('')
    for act in (learn, fill):
      with pytest.raises(ValueError, match=f'{name} among them'):
        act(tmp_path)
    stranger.unlink()
  # What a killed process left counts for nothing, and goes.
  left = tmp_path / 'responses-00001-of-00004.jsonl.77.partial'
  left.write_text('{')
  learn(tmp_path)
  assert fill(tmp_path) == 0
  assert not left.exists()


# Writes some 10 MB of tokens, and says when it begins.
TOKENS = """
import pathlib, sys
import numpy as np
from kdjax.data import examples, tokens

values = np.arange(10**6, dtype=np.int32)
rows = examples.Ragged.from_lengths(values, [10] * 10**5)
names = examples.Texts.from_strings(map(str, range(10**5)))
groups = examples.Ragged(np.arange(10**5), np.arange(10**5 + 1))
lists = examples.References(names, groups)
print('ready', flush=True)
made = examples.Examples('t', 's', 'f', names, names, lists, rows)
tokens.write(pathlib.Path(sys.argv[1]), made)
"""


@pytest.mark.slow
def test_half_a_cache_of_tokens_never_counts(tmp_path, tries, tried):
  """Two processes write the same one, and one of them is killed, or both."""
  rng, count, whole = random.Random(0), tries(3, 50), 0
  for i in range(count):
    directory = tmp_path / str(i)
    command = [sys.executable, '-c', TOKENS, str(directory)]
    writers = [
      subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)
    ]
    for writer in writers:
      writer.stdout.readline()
    time.sleep(rng.random() * 0.15)
    for writer in writers[: 1 + i % 2]:
      writer.kill()
    for writer in writers:
      writer.communicate()
    if i % 2 == 0:
      assert writers[1].returncode == 0
    if i % 2 == 0 or directory.exists():
      found, whole = tokens.read(directory), whole + 1
      assert len(found) == 10**5 and found.prompts[99999].tolist()[-1] == 999999
      shutil.rmtree(directory)
  assert whole
  tried(6, 'kill -9 while two processes write one cache of tokens', count)
