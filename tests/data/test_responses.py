"""Teacher responses come back to their examples, or not at all."""

import dataclasses
import json

import numpy as np
import pytest

from kdjax.data import examples as examples_lib
from kdjax.data import responses


def make(count=7):
  names = [f'n{i}' for i in range(count)]
  return examples_lib.Examples(
    task='toy',
    split='train',
    vocabulary_fingerprint='f',
    ids=examples_lib.Texts.from_strings(names),
    inputs=examples_lib.Texts.from_strings(f'prompt {n}' for n in names),
    references=examples_lib.References.from_lists([[]] * count),
    prompts=examples_lib.Ragged.from_rows([[1]] * count),
  )


def said(i):
  return [i + 10] * (i % 3) + [1]


def open_writer(directory, examples=None, **options):
  options = {'model': 'm', 'sampling': {'top_k': 0}, 'num_shards': 3, **options}
  return responses.Writer(directory, examples or make(), **options)


def finish(writer):
  for shard, rows in writer.pending():
    writer.write(shard, [said(int(i)) for i in rows], ['é'] * len(rows))


def teacher(directory, examples=None, width=9):
  examples = examples or make()
  attached = responses.attach_teacher(
    examples, directory, max_response_tokens=width
  )
  return [row.tolist() for row in attached.teacher]


def test_round_trip(tmp_path):
  finish(open_writer(tmp_path))
  assert teacher(tmp_path) == [said(i) for i in range(7)]
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'manifest.json',
    *(f'responses-{i:05d}-of-00003.jsonl' for i in range(3)),
  ]


def test_responses_follow_ids_not_positions(tmp_path):
  finish(open_writer(tmp_path))
  order = np.array([5, 0, 3])
  assert teacher(tmp_path, make().take(order)) == [said(i) for i in order]


def test_a_killed_run_goes_on(tmp_path):
  writer = open_writer(tmp_path)
  shard, rows = writer.pending()[1]
  writer.write(shard, [said(int(i)) for i in rows], [''] * len(rows))
  with pytest.raises(FileNotFoundError, match='2 of 3 shards are missing'):
    teacher(tmp_path)
  resumed = open_writer(tmp_path)
  assert [shard for shard, _ in resumed.pending()] == [0, 2]
  finish(resumed)
  assert teacher(tmp_path) == [said(i) for i in range(7)]


def test_another_run_does_not_mix_in(tmp_path):
  open_writer(tmp_path)
  with pytest.raises(ValueError, match=r"model \(there 'm', here 'other'\)"):
    open_writer(tmp_path, model='other')
  with pytest.raises(ValueError, match='num_examples'):
    open_writer(tmp_path, make(5))


def test_shards_are_never_more_than_examples(tmp_path):
  assert len(open_writer(tmp_path, make(2), num_shards=10).pending()) == 2


def test_a_shard_must_be_whole(tmp_path):
  with pytest.raises(ValueError, match='shard 0 has 3 examples, but 1'):
    open_writer(tmp_path).write(0, [[1]], [''])


def test_long_responses_are_cut(tmp_path):
  finish(open_writer(tmp_path))
  assert teacher(tmp_path, width=2) == [said(i)[:2] for i in range(7)]


@pytest.mark.parametrize('field', ['vocabulary_fingerprint', 'task', 'split'])
def test_mismatch(field, tmp_path):
  finish(open_writer(tmp_path))
  other = dataclasses.replace(make(), **{field: 'other'})
  with pytest.raises(ValueError, match="this run has 'other'"):
    teacher(tmp_path, other)


def test_missing_examples_and_other_prompts(tmp_path):
  finish(open_writer(tmp_path, make(5)))
  with pytest.raises(ValueError, match="no response for 2 of 7.*'n5'"):
    teacher(tmp_path, make(7))
  prompts = examples_lib.Texts.from_strings(['another'] * 5)
  with pytest.raises(ValueError, match="another prompt for the example 'n0'"):
    teacher(tmp_path, dataclasses.replace(make(5), inputs=prompts))


def test_nothing_there(tmp_path):
  with pytest.raises(FileNotFoundError, match='--mode=generate'):
    teacher(tmp_path / 'nowhere')


def test_manifest_is_for_people_too(tmp_path):
  open_writer(tmp_path, sampling={'temperature': 0.5})
  manifest = json.loads((tmp_path / 'manifest.json').read_text())
  assert manifest['model'] == 'm'
  assert manifest['sampling'] == {'temperature': 0.5}
