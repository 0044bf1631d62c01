"""Batches hold every example once an epoch, in an order that can be resumed."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from kdjax.data import examples as examples_lib
from kdjax.data import pipeline, topk

SHAPE = {'max_prompt_tokens': 6, 'max_response_tokens': 5, 'pad_id': 0}
EOS = 1


def make(count=10, labelled=True, teacher=False, pairs=False, templates=0):
  """Example i has the prompt [i + 10] * (i % 6) and i % 4 words and EOS."""
  names = [f'n{i}' for i in range(count)]
  prompts = [[i + 10] * (i % 6) for i in range(count)]
  responses = [[i + 50] * (i % 4) + [EOS] for i in range(count)]
  ragged = examples_lib.Ragged.from_rows
  return examples_lib.Examples(
    task='toy',
    split='train',
    vocabulary_fingerprint='f',
    ids=examples_lib.Texts.from_strings(names),
    inputs=examples_lib.Texts.from_strings(names),
    references=examples_lib.References.from_lists([[n] for n in names]),
    prompts=ragged(prompts),
    responses=ragged(responses) if labelled else None,
    rejected=ragged([[i + 70, EOS] for i in range(count)]) if pairs else None,
    teacher=ragged([[7, EOS]] * count) if teacher else None,
    teacher_prompts=tuple(
      ragged([[i + 30] * (1 + i % 8) for i in range(count)])
      for _ in range(templates)
    ),
  )


def ids(iterator, batches):
  return [b.example_id.tolist() for b in itertools.islice(iterator, batches)]


def test_every_example_once_an_epoch():
  order = sum(ids(pipeline.train_iterator(make(), 4, seed=0, **SHAPE), 5), [])
  assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
  assert order[:10] != order[10:]


def test_batches_of_one():
  one, two = (
    sum(ids(pipeline.train_iterator(make(), n, seed=0, **SHAPE), 12 // n), [])
    for n in (1, 2)
  )
  assert one == two


def test_seed_selects_the_order():
  first, again, other = (
    ids(pipeline.train_iterator(make(), 5, seed=seed, **SHAPE), 2)
    for seed in (3, 3, 4)
  )
  assert first == again != other


def test_state_is_small_and_exact():
  iterator = pipeline.train_iterator(make(), 3, seed=0, **SHAPE)
  ids(iterator, 4)
  state = iterator.get_state()
  assert len(str(state)) < 200
  expected = ids(iterator, 6)
  fresh = pipeline.train_iterator(make(), 3, seed=0, **SHAPE)
  fresh.set_state(state)
  assert ids(fresh, 6) == expected
  iterator.set_state(state)
  assert ids(iterator, 6) == expected


def test_pairs_of_batches_go_on_where_the_first_of_them_ended():
  make_pairs = lambda: pipeline.Ahead(
    pipeline.train_iterator(make(), 3, seed=0, **SHAPE)
  )
  plain = pipeline.train_iterator(make(), 3, seed=0, **SHAPE)
  order = ids(plain, 6)
  pairs = make_pairs()
  seen = [[each.example_id.tolist() for each in next(pairs)] for _ in range(3)]
  assert seen == [[order[i], order[i + 1]] for i in range(3)]
  state = json.loads(json.dumps(pairs.get_state()))
  again = make_pairs()
  next(again)
  again.set_state(state)
  assert [x.example_id.tolist() for x in next(again)] == order[3:5]


def test_rows_are_those_of_the_whole_batch():
  """Whatever part a process reads, its position is that of all."""
  options = dict(SHAPE, seed=0, with_references=True)
  whole = pipeline.train_iterator(make(), 4, **options)
  some = np.array([1, 3])
  part = pipeline.train_iterator(make(), 4, rows=some, **options)
  for _ in range(6):
    batch, mine = next(whole), next(part)
    assert mine.references == tuple(batch.references[i] for i in some)
    batch, mine = (
      dataclasses.replace(each, references=None) for each in (batch, mine)
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(a, b[some]), mine, batch
    )
    assert part.get_state() == whole.get_state()


def test_a_position_serves_other_rows():
  part = pipeline.train_iterator(
    make(), 4, seed=0, rows=np.array([0, 1]), **SHAPE
  )
  ids(part, 4)
  whole = pipeline.train_iterator(make(), 4, seed=0, **SHAPE)
  whole.set_state(json.loads(json.dumps(part.get_state())))
  assert [batch[:2] for batch in ids(whole, 5)] == ids(part, 5)


@pytest.mark.parametrize('side', ['left', 'right'])
def test_padding(side):
  examples = make()
  iterator = pipeline.train_iterator(
    examples, 5, seed=1, prompt_padding=side, **SHAPE
  )
  batch = next(iterator)
  assert batch.prompt.tokens.shape == (5, 6)
  assert batch.responses['data'].tokens.shape == (5, 5)
  for row, i in enumerate(batch.example_id):
    tokens, mask = batch.prompt.tokens[row], batch.prompt.mask[row]
    np.testing.assert_array_equal(tokens[mask], examples.prompts[int(i)])
    assert (tokens[~mask] == 0).all()
    steps = np.diff(mask.astype(int))
    assert (steps >= 0).all() if side == 'left' else (steps <= 0).all()
    response = batch.responses['data']
    said = response.tokens[row][response.mask[row]]
    np.testing.assert_array_equal(said, examples.responses[int(i)])
    assert said[-1] == EOS and response.mask[row][0]


def test_dtypes_and_optional_parts():
  batch = next(pipeline.train_iterator(make(), 2, seed=0, **SHAPE))
  leaves = (batch.prompt.tokens, batch.prompt.mask, batch.example_id)
  assert [leaf.dtype for leaf in leaves] == [np.int32, np.bool_, np.int32]
  assert set(batch.responses) == {'data'} and batch.references is None
  examples = make(labelled=False)
  batch = next(pipeline.train_iterator(examples, 2, seed=0, **SHAPE))
  assert batch.responses == {}
  batch = next(
    pipeline.train_iterator(
      make(teacher=True), 2, seed=0, with_references=True, **SHAPE
    )
  )
  np.testing.assert_array_equal(
    batch.responses['teacher'].tokens, [[7, EOS, 0, 0, 0]] * 2
  )
  assert batch.references == tuple((f'n{i}',) for i in batch.example_id)


def test_pairs_stand_side_by_side():
  batch = next(pipeline.train_iterator(make(pairs=True), 4, seed=0, **SHAPE))
  assert set(batch.responses) == {'data', 'rejected'}
  rejected = batch.responses['rejected']
  np.testing.assert_array_equal(rejected.tokens[:, 0], batch.example_id + 70)
  np.testing.assert_array_equal(rejected.mask, [[1, 1, 0, 0, 0]] * 4)


def test_log_probabilities_stand_beside_the_teachers_tokens(tmp_path):
  examples, k, size = make(teacher=True), 2, 9
  rows = np.zeros(20, topk.row_type(k, size))
  rows['ids'] = np.stack([np.arange(20) % 8, np.arange(20) % 8 + 1], -1)
  rows['logprobs'], rows['tail'] = np.log(0.25), np.log(0.5)
  (tmp_path / 'table').write_bytes(rows.tobytes())
  # Example i's two tokens are rows 2 i and 2 i + 1.
  start = np.arange(10) * 2
  table = topk.Rows.open(
    [tmp_path / 'table'], k, size, np.zeros(10, int), start, np.full(10, 2)
  )
  examples = dataclasses.replace(examples, teacher_logprobs=table)
  batch = next(pipeline.train_iterator(examples, 4, seed=0, **SHAPE))
  found = batch.responses['teacher'].teacher
  assert found.ids.shape == found.logprobs.shape == (4, 5, k)
  assert found.tail.shape == (4, 5)
  assert batch.responses['data'].teacher is None
  expected = (2 * batch.example_id[:, None] + np.arange(2)) % 8
  np.testing.assert_array_equal(found.ids[:, :2, 0], expected)
  assert np.isfinite(jax.tree.leaves(found)[1]).all()
  order = np.array([7, 2])
  taken = next(
    pipeline.train_iterator(examples.take(order), 2, seed=0, **SHAPE)
  )
  found = taken.responses['teacher'].teacher
  first = (2 * order[taken.example_id]) % 8
  np.testing.assert_array_equal(found.ids[:, 0, 0], first)


@pytest.mark.parametrize('side', ['left', 'right'])
def test_teacher_prompts_have_their_own_width(side):
  shape = dict(SHAPE, max_teacher_prompt_tokens=8, prompt_padding=side)
  examples = make(templates=2)
  train = next(pipeline.train_iterator(examples, 4, seed=0, **shape))
  for batch in (
    train,
    *(b for b, _ in pipeline.eval_batches(examples, 4, **shape)),
  ):
    assert batch.prompt.tokens.shape == (4, 6)
    assert len(batch.teacher_prompts) == 2
    for prompt in batch.teacher_prompts:
      assert prompt.tokens.shape == (4, 8)
      np.testing.assert_array_equal(
        prompt.mask.sum(1), 1 + batch.example_id % 8
      )
      first = prompt.tokens[np.arange(4), prompt.mask.argmax(1)]
      np.testing.assert_array_equal(first, batch.example_id + 30)
      edge = prompt.mask[:, -1 if side == 'left' else 0]
      assert edge.all()
  with pytest.raises(ValueError, match='8 tokens, but max_teacher_prompt_tok'):
    pipeline.train_iterator(examples, 4, seed=0, **SHAPE)
  plain = next(pipeline.train_iterator(make(), 4, seed=0, **SHAPE))
  assert plain.teacher_prompts is None


def test_eval_yields_every_example_once():
  seen = []
  for batch, valid in pipeline.eval_batches(make(), 4, **SHAPE):
    assert batch.example_id.shape == (4,)
    seen += batch.example_id[:valid].tolist()
    assert batch.references == tuple((f'n{i}',) for i in batch.example_id)
  assert seen == list(range(10))


def test_errors():
  with pytest.raises(ValueError, match='batch_size=11.*10 examples'):
    pipeline.train_iterator(make(), 11, seed=0, **SHAPE)
  with pytest.raises(ValueError, match='max_prompt_tokens=2'):
    pipeline.train_iterator(
      make(), 2, seed=0, **dict(SHAPE, max_prompt_tokens=2)
    )
  with pytest.raises(ValueError, match='expected left or right'):
    pipeline.train_iterator(make(), 2, seed=0, prompt_padding='up', **SHAPE)
