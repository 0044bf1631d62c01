"""The embedded data sets: what their cards say is what the files hold."""

import collections
import hashlib
import json
import lzma
import pathlib
import re

import pytest

import kdjax.data
from kdjax.data.builders import debsum, files, g2p

ASSETS = pathlib.Path(kdjax.data.__file__).parent / 'assets'
SPLITS = ('train', 'validation', 'test')


@pytest.fixture(scope='module', params=['debsum', 'g2p'])
def folder(request):
  return ASSETS / request.param


def read(name):
  splits = {}
  for split in SPLITS:
    data = (ASSETS / name / f'{split}.jsonl.xz').read_bytes()
    lines = lzma.decompress(data).decode('utf-8').splitlines()
    splits[split] = [json.loads(line) for line in lines]
  return splits


@pytest.fixture(scope='module')
def summaries():
  return read('debsum')


@pytest.fixture(scope='module')
def words():
  return read('g2p')


def pieces(name):
  sentencepiece = pytest.importorskip('sentencepiece')
  path = ASSETS / name / 'spiece.model'
  return sentencepiece.SentencePieceProcessor(model_file=str(path))


def test_card_lists_every_file_with_its_checksum(folder):
  card = (folder / 'README.md').read_text('utf-8')
  rows = re.findall(r'^\| `(\S+)` \| (\d+) \| `([0-9a-f]{64})` \|$', card, re.M)
  listed = {name: (int(size), digest) for name, size, digest in rows}
  held = {
    path.name: (
      path.stat().st_size,
      hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    for path in folder.iterdir()
    if path.name != 'README.md'
  }
  assert listed == held


@pytest.mark.parametrize('name', ['debsum', 'g2p'])
def test_card_counts(name, request):
  splits = request.getfixturevalue(
    {'debsum': 'summaries', 'g2p': 'words'}[name]
  )
  card = (ASSETS / name / 'README.md').read_text('utf-8')
  counts = [len(splits[s]) for s in SPLITS]
  row = ' | '.join(f'{n:,}' for n in [*counts, sum(counts)])
  assert f'| {row} |' in card


def test_debsum_rows_are_in_the_split_of_their_source(summaries):
  for split, rows in summaries.items():
    assert {debsum.split_of(row) for row in rows} == {split}


def test_debsum_holds_one_distinct_example_per_source(summaries):
  rows = [row for split in SPLITS for row in summaries[split]]
  for field in ('id', 'source', 'document'):
    assert len({row[field] for row in rows}) == len(rows), field


def test_debsum_text_is_clean(summaries):
  for rows in summaries.values():
    for row in rows:
      assert list(row) == ['id', 'source', 'document', 'summary']
      assert len(row['document'].split()) >= debsum.MIN_WORDS
      for text in row.values():
        assert text and text == ' '.join(text.split())


def test_debsum_has_no_boilerplate(summaries):
  rows = [row for split in SPLITS for row in summaries[split]]
  assert debsum.drop_boilerplate(rows) == rows


def test_rows_are_in_the_fixed_random_order(summaries, words):
  for splits, field in ((summaries, 'id'), (words, 'word')):
    for rows in splits.values():
      keys = [files.shuffle_key(row[field]) for row in rows]
      assert keys == sorted(keys)


def test_g2p_rows_are_in_the_split_of_their_stem(words):
  stems = collections.defaultdict(set)
  for split, rows in words.items():
    assert {g2p.split_of(row) for row in rows} == {split}
    for row in rows:
      stems[g2p.stem(row['word'])].add(split)
  assert all(len(splits) == 1 for splits in stems.values())


def test_g2p_words_are_distinct_and_pronounced(words):
  rows = [row for split in SPLITS for row in words[split]]
  assert len({row['word'] for row in rows}) == len(rows)
  for row in rows:
    assert list(row) == ['word', 'pronunciations']
    assert re.fullmatch(r"[a-z']+", row['word'])
    assert row['pronunciations']
    assert len(set(row['pronunciations'])) == len(row['pronunciations'])
    for text in row['pronunciations']:
      assert re.fullmatch(r'[A-Z]{1,2}( [A-Z]{1,2})*', text)


@pytest.mark.parametrize(('name', 'size'), [('debsum', 8000), ('g2p', 69)])
def test_special_ids_are_those_of_t5(name, size):
  model = pieces(name)
  assert len(model) == size
  assert [model.id_to_piece(i) for i in range(3)] == ['<pad>', '</s>', '<unk>']
  assert (model.pad_id(), model.eos_id(), model.unk_id()) == (0, 1, 2)
  assert model.bos_id() == -1


def test_debsum_tokenizer_round_trips_and_stays_small(summaries):
  model = pieces('debsum')
  rows = summaries['test'][:200]
  texts = [row['summary'] for row in rows]
  ids = [model.encode(text) for text in texts]
  known = [(i, t) for i, t in zip(ids, texts) if model.unk_id() not in i]
  # A few summaries hold a rare character that has no piece.
  assert len(known) >= 0.98 * len(texts)
  for i, text in known:
    assert model.decode(i) == model.normalize(text).replace('▁', ' ').strip()
  # About 1.4 pieces a word: a model of other text would split finer.
  assert sum(map(len, ids)) < 1.6 * sum(len(t.split()) for t in texts)


def test_g2p_tokenizer_has_one_piece_per_symbol(words):
  model = pieces('g2p')
  for row in words['test']:
    for text in (' '.join(row['word']), *row['pronunciations']):
      ids = model.encode(text)
      assert len(ids) == len(text.split())
      assert model.unk_id() not in ids
      assert model.decode(ids) == text
