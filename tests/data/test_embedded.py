"""Embedded tasks: what is asked and answered, and what is unlabelled."""

import pytest

from kdjax.data import loading, pipeline, tasks, vocabularies


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


def test_debsum_text_has_the_documents_of_debsum():
  task, parallel = tasks.get('debsum_text'), tasks.get('debsum')
  for split in tasks.SPLITS:
    rows = task.source.rows(split)[:20]
    assert rows == parallel.source.rows(split)[:20]
  (example,) = task.format(rows[0], 0)
  assert (example.id, example.inputs) == (rows[0]['id'], '')
  assert example.target == rows[0]['document']


KEYS = {'debsum': 'id', 'g2p': 'word'}


def part(name, split='train', **args):
  """The examples of a part, by their names."""
  task = tasks.get(name, **args)
  rows = task.source.rows(split)
  return {e.id: e for i, r in enumerate(rows) for e in task.format(r, i)}


@pytest.mark.parametrize('name', KEYS)
def test_parts_partition_the_train_split(name):
  whole = part(name)
  labelled = part(name, part='labelled', fraction=0.1)
  rest = part(name, part='unlabelled', fraction=0.1)
  assert {**labelled, **rest}.keys() == whole.keys()
  assert not labelled.keys() & rest.keys()
  assert labelled == {key: whole[key] for key in labelled}
  assert rest == {
    key: whole[key]._replace(target=None, references=()) for key in rest
  }
  # Hashes are as good as random: over 10,000 names, so 5 sigma are 1.5 %.
  assert len(whole) > 10_000
  assert abs(len(labelled) / len(whole) - 0.1) < 0.015
  assert labelled.keys() < part(name, part='labelled', fraction=0.3).keys()


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_other_splits_keep_their_gold(split):
  assert part('g2p', split, part='unlabelled') == part('g2p', split)


@pytest.mark.slow
def test_an_unlabelled_part_is_loaded_without_responses(tmp_path):
  options = {'vocabulary': 'g2p', 'limit': 20, 'cache_dir': tmp_path}
  parts = {
    name: loading.load(tasks.get('g2p', part=name), 'train', **options)
    for name in ('all', 'labelled', 'unlabelled')
  }
  unlabelled = parts['unlabelled']
  assert unlabelled.responses is None
  shape = {'max_prompt_tokens': 36, 'max_response_tokens': 36, 'pad_id': 0}
  batch = next(pipeline.train_iterator(unlabelled, 4, seed=0, **shape))
  assert batch.responses == {} and batch.prompt.mask.any(1).all()
  assert len(parts['labelled'].responses) == 20
  # No two of them share a cache.
  assert len({tuple(examples.ids) for examples in parts.values()}) == 3


def test_wrong_parts():
  with pytest.raises(ValueError, match="part='some', expected all, labelled"):
    tasks.get('debsum', part='some')
  for fraction, reason in (
    (0, 'between 0 and 1'),
    (1, 'between 0 and 1'),
    (2.0, 'between 0 and 1'),
    (float('nan'), 'expected a finite number'),
  ):
    with pytest.raises(ValueError, match=reason):
      tasks.get('g2p', part='labelled', fraction=fraction)


def test_plain_text_has_the_prompt_of_an_empty_input(tmp_path):
  vocabulary = vocabularies.load('debsum')
  examples = loading.load(
    'debsum_text',
    'test',
    vocabulary,
    max_prompt_tokens=1,
    max_response_tokens=16,
    on_long='truncate',
    limit=20,
    cache_dir=tmp_path,
  )
  rows = tasks.get('debsum_text').source.rows('test')
  # T5 ends every prompt with EOS; nothing else is in it.
  assert [p.tolist() for p in examples.prompts] == [[vocabulary.eos_id]] * 20
  for row, tokens in zip(rows, examples.responses):
    ids = [*vocabulary.encode(row['document']), vocabulary.eos_id]
    assert tokens.tolist() == ids[:16]
