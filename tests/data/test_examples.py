"""Ragged arrays agree with lists of lists; what is written is read."""

import numpy as np
import pytest

from kdjax.data import examples as examples_lib

ROWS = [[3, 4, 5], [], [6], [7, 8], []]


def lists(ragged):
  return [row.tolist() for row in ragged]


def test_ragged_operations_agree_with_lists():
  ragged = examples_lib.Ragged.from_rows(ROWS)
  assert lists(ragged) == ROWS
  order = np.array([3, 1, 0, 3])
  assert lists(ragged.take(order)) == [ROWS[i] for i in order]
  for limit in (0, 1, 2, 9):
    assert lists(ragged.truncate(limit)) == [r[:limit] for r in ROWS]
  assert lists(ragged.surround([0, 1], [2])) == [[0, 1, *r, 2] for r in ROWS]
  assert ragged[-2].tolist() == ROWS[-2]
  with pytest.raises(IndexError):
    ragged[5]


@pytest.mark.parametrize('side', ['left', 'right'])
def test_pad_agrees_with_lists(side):
  ragged = examples_lib.Ragged.from_rows(ROWS)
  tokens, mask = ragged.pad(np.arange(5), 4, 9, side)
  for row, (padded, real) in zip(ROWS, zip(tokens, mask)):
    fill = [9] * (4 - len(row))
    expected = fill + row if side == 'left' else row + fill
    assert padded.tolist() == expected
    assert padded[real].tolist() == row
  with pytest.raises(ValueError, match='row of 3'):
    ragged.pad(np.arange(5), 2, 9, side)


def test_pad_of_nothing_but_empty_rows():
  ragged = examples_lib.Ragged.from_rows([[], []])
  tokens, mask = ragged.pad(np.arange(2), 3, 9)
  assert (tokens == 9).all() and not mask.any()


def toy(labelled=True, pairs=False, templates=0):
  ragged = examples_lib.Ragged.from_rows
  return examples_lib.Examples(
    task='t',
    split='s',
    vocabulary_fingerprint='f',
    ids=examples_lib.Texts.from_strings(['a', 'ä']),
    inputs=examples_lib.Texts.from_strings(['日本', '']),
    references=examples_lib.References.from_lists([['x', 'y'], []]),
    prompts=ragged([[1, 2], []]),
    responses=ragged([[3], [4, 5]]) if labelled else None,
    rejected=ragged([[6, 7], [8]]) if pairs else None,
    teacher_prompts=tuple(ragged([[i], [i, 9]]) for i in range(templates)),
  )


def flat(examples):
  return (
    list(examples.ids),
    list(examples.inputs),
    list(examples.references),
    lists(examples.prompts),
    examples.responses and lists(examples.responses),
    examples.rejected and lists(examples.rejected),
    [lists(prompts) for prompts in examples.teacher_prompts],
  )


def test_take():
  taken = toy().take(np.array([1]))
  assert flat(taken) == (['ä'], [''], [()], [[]], [[4, 5]], None, [])
  taken = toy(pairs=True, templates=2).take(np.array([1, 0]))
  assert lists(taken.rejected) == [[8], [6, 7]]
  assert [lists(p) for p in taken.teacher_prompts] == [
    [[0, 9], [0]],
    [[1, 9], [1]],
  ]


def test_a_digest_is_that_of_what_is_trained_on():
  def make(prompts=((1, 2), (3,)), responses=((4,), (5,)), gold=(('a',), ())):
    return examples_lib.Examples(
      task='toy',
      split='train',
      vocabulary_fingerprint='f',
      ids=examples_lib.Texts.from_strings('xy'),
      inputs=examples_lib.Texts.from_strings('xy'),
      references=examples_lib.References.from_lists(gold),
      prompts=examples_lib.Ragged.from_rows(prompts),
      responses=None
      if responses is None
      else examples_lib.Ragged.from_rows(responses),
    )

  others = [
    make(),
    make(prompts=((1,), (2, 3))),
    make(prompts=((1, 2), (4,))),
    make(responses=((4,), (6,))),
    make(responses=None),
    make(gold=(('b',), ())),
    make(gold=((), ('a',))),
  ]
  assert len({each.digest() for each in others}) == len(others)
  assert make().digest() == others[0].digest()
  assert make().take(np.array([0, 1])).digest() == others[0].digest()
