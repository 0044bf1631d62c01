"""Teacher responses come back to their examples, or not at all."""

import dataclasses
import json

import numpy as np
import pytest

from kdjax import types
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


MODEL = {'role': 'teacher', 'weights': 'w' * 64}
SIZE = 20
K = 3


def open_writer(directory, examples=None, **options):
  options = {
    'model': MODEL,
    'sampling': {'top_k': 0},
    'num_shards': 3,
    'vocabulary_size': SIZE,
    **options,
  }
  return responses.Writer(directory, examples or make(), **options)


def top(i):
  """What a model might give at each token of response i."""
  rng = np.random.default_rng(i)
  logits = np.sort(rng.normal(size=(len(said(i)), SIZE)))[:, ::-1]
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  tail = np.log(p[:, K:].sum(-1))
  ids = rng.permuted(np.tile(np.arange(SIZE), (len(p), 1)), axis=1)[:, :K]
  return types.TopK(ids, np.log(p[:, :K]), tail)


def finish(writer, k=0):
  for shard, rows in writer.pending():
    tokens, texts = [said(int(i)) for i in rows], ['é\u2028'] * len(rows)
    writer.write(shard, tokens, texts, [top(int(i)) for i in rows] if k else [])


def attach(directory, examples=None, width=9, **options):
  return responses.attach_teacher(
    examples or make(),
    directory,
    max_response_tokens=width,
    vocabulary_size=SIZE,
    **options,
  )


def teacher(directory, examples=None, width=9):
  return [row.tolist() for row in attach(directory, examples, width).teacher]


def test_round_trip(tmp_path):
  finish(open_writer(tmp_path))
  assert teacher(tmp_path) == [said(i) for i in range(7)]
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'manifest.json',
    *(
      f'responses-{i:05d}-of-00003.{ending}'
      for i in range(3)
      for ending in ('json', 'jsonl')
    ),
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
  about = {'limit': 7}
  with pytest.raises(ValueError, match=r'sampling.top_k \(there 0, here 5\)'):
    open_writer(tmp_path, sampling={'top_k': 5})
  other = {'role': 'teacher', 'layers': {'decoder': 1}}
  with pytest.raises(ValueError) as error:
    open_writer(tmp_path, model=other, about=about)
  for part in (
    "model.weights (there 'wwwwwwwwwwww...wwww', here None)",
    "model.layers (there None, here {'decoder': 1})",
    'beside these, in limit (there None, here 7)',
  ):
    assert part in str(error.value)
  with pytest.raises(ValueError, match=r'examples \(there 7, here 5\)'):
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
  name = field.removesuffix('_fingerprint').replace('vocabulary', 'tokenizer')
  with pytest.raises(ValueError, match=rf"{name} \(there .*, here 'other'\)"):
    teacher(tmp_path, other)


def test_another_teacher_is_refused(tmp_path):
  finish(open_writer(tmp_path))
  assert len(attach(tmp_path, model=MODEL)) == 7
  other = {**MODEL, 'weights': 'v' * 64}
  with pytest.raises(ValueError, match='weights .*accept_other_teacher'):
    attach(tmp_path, model=other)


def test_a_students_own_responses_are_no_teachers(tmp_path):
  finish(open_writer(tmp_path, model={**MODEL, 'role': 'student'}))
  assert len(attach(tmp_path, model=MODEL)) == 7


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
  open_writer(tmp_path, sampling={'temperature': 0.5}, about={'limit': 3})
  manifest = json.loads((tmp_path / 'manifest.json').read_text())
  assert manifest['about'] == {'limit': 3}
  sampling = {'temperature': 0.5, 'top_logprobs': 0}
  assert manifest['key']['sampling'] == sampling


def test_the_top_k_come_back_to_their_tokens(tmp_path):
  finish(open_writer(tmp_path, top_logprobs=K), K)
  order = np.array([5, 0, 3])
  found = attach(tmp_path, make().take(order), width=2, logprobs=True)
  width = 4
  padded = found.teacher_logprobs.pad(np.array([2, 0, 1]), width)
  assert padded.ids.shape == (3, width, K)
  assert padded.tail.shape == (3, width)
  for row, i in enumerate((3, 5, 0)):
    expected, length = top(i), min(2, len(said(i)))
    for name in ('ids', 'logprobs', 'tail'):
      np.testing.assert_array_equal(
        getattr(padded, name)[row, :length],
        getattr(expected, name)[:length].astype(getattr(padded, name).dtype),
      )
  every = np.exp(padded.logprobs).sum(-1) + np.exp(padded.tail)
  np.testing.assert_allclose(every, 1, rtol=1e-5)


def test_the_captured_mass_is_the_mean_over_tokens(tmp_path):
  writer = open_writer(tmp_path, top_logprobs=K)
  finish(writer, K)
  tails = np.concatenate([top(i).tail for i in range(7)])
  np.testing.assert_allclose(
    writer.captured(), 1 - np.exp(tails).mean(), rtol=1e-6
  )


def test_log_probabilities_that_are_not_there_are_asked_for(tmp_path):
  finish(open_writer(tmp_path))
  with pytest.raises(ValueError, match='generate.top_logprobs=8'):
    attach(tmp_path, logprobs=True)


def test_another_prompt_says_what_it_was_made_of(tmp_path):
  finish(open_writer(tmp_path, about={'limit': 0, 'max_prompt_tokens': 8}))
  shorter = dataclasses.replace(make(), prompts=make().prompts.truncate(0))
  about = {'limit': 0, 'max_prompt_tokens': 6}
  with pytest.raises(ValueError, match=r'max_prompt_tokens \(there 8, here 6'):
    attach(tmp_path, shorter, about=lambda: about)


def test_a_teacher_is_asked_its_own_prompts(tmp_path):
  own = dataclasses.replace(
    make(), teacher_prompts=(examples_lib.Ragged.from_rows([[4, 5]] * 7),)
  )
  finish(open_writer(tmp_path, own))
  assert teacher(tmp_path, own) == [said(i) for i in range(7)]
  with pytest.raises(ValueError, match="another prompt for the example 'n0'"):
    teacher(tmp_path)


def test_names_and_texts_may_hold_anything(tmp_path):
  names = ['a\nb', 'a', '\nb', '\ud800', 'é\u2028\u0085', '', ' ']
  odd = dataclasses.replace(make(), ids=examples_lib.Texts.from_strings(names))
  finish(open_writer(tmp_path, odd))
  assert teacher(tmp_path, odd) == [said(i) for i in range(7)]
  assert not open_writer(tmp_path, odd).pending()


def test_a_digest_is_of_what_decides(tmp_path):
  for name, options in (
    ('a', {}),
    ('b', {}),
    ('c', {'sampling': {'top_k': 5}}),
    ('d', {'num_shards': 2}),
  ):
    finish(open_writer(tmp_path / name, **options))
  a, b, c, d = (responses.digest(tmp_path / name) for name in 'abcd')
  assert a == b and len({a, c, d}) == 3
