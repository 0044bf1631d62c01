"""Tokenizers give the same ids however they are stored."""

import errno
import json
import subprocess
import sys

import numpy as np
import pytest

from kdjax import hub
from kdjax.data import tasks, vocabularies

TEXTS = [
  'libfoo-dev: A <b>C++</b> library, v2.0 (headers)',
  '  two  spaces\tand\na line ',
  'naïve ﬁle ½ 日本語 🙂',
  '<extra_id_0> in <extra_id_99>',
  '',
]


@pytest.mark.parametrize('name', vocabularies.EMBEDDED)
def test_save_pretrained_keeps_ids_and_fingerprint(name, tmp_path):
  ours = vocabularies.load(name)
  ours.save_pretrained(tmp_path)
  theirs = vocabularies.load(str(tmp_path))
  assert theirs.fingerprint == ours.fingerprint
  assert (theirs.size, theirs.pad_id, theirs.eos_id) == (
    ours.size,
    ours.pad_id,
    ours.eos_id,
  )
  assert theirs.prompt_suffix == ours.prompt_suffix
  rows = tasks.get(name).source.rows('test')[:200]
  form = tasks.get(name).format
  texts = [e.inputs for i, r in enumerate(rows) for e in form(r, i)]
  # A model of whole words counts unknown words in another way.
  for text in texts + (TEXTS if name == 'debsum' else []):
    assert theirs.encode(text) == ours.encode(text), text
  model = vocabularies.load(str(tmp_path / 'spiece.model'))
  assert model.fingerprint == ours.fingerprint


def test_debsum_has_sentinels_counted_from_the_end():
  vocabulary = vocabularies.load('debsum')
  ids = vocabulary.encode('<extra_id_0> <extra_id_99>')
  assert ids == [vocabulary.size - 1, vocabulary.size - 100]
  assert (vocabulary.pad_id, vocabulary.eos_id) == (0, 1)


def test_decode_drops_special_ids_and_bears_padded_tables():
  vocabulary = vocabularies.load('debsum')
  ids = vocabulary.encode('fast mail server')
  noisy = [0, *ids, 1, vocabulary.size - 1, 0, 0]
  assert vocabulary.decode(np.array(noisy)) == 'fast mail server'
  assert vocabulary.decode([vocabulary.size + 5]).strip()


@pytest.mark.parametrize('name', ['debsum', 'g2p', 'bytes'])
def test_pieces_are_the_text_token_by_token(name, tmp_path, tiny_tokenizer):
  if name == 'bytes':
    name = str(tiny_tokenizer(tmp_path))
  ours = vocabularies.load(name)
  texts = TEXTS if name != 'g2p' else ['a b c', 'K AE T']
  for text in texts:
    ids = [*ours.encode(text), ours.eos_id]
    pieces = ours.pieces(ids)
    assert len(pieces) == len(ids) and pieces[-1] == ''
    assert ''.join(pieces) == ours.decode(ids)
  ids = ours.encode(texts[0])
  for n in range(len(ids)):
    # Whole words are whole whatever follows them.
    assert ours.decode(ids).startswith(''.join(ours.pieces(ids)[:n]))


def test_fingerprint_is_of_the_mapping_alone(tmp_path, tiny_tokenizer):
  plain = vocabularies.load(tiny_tokenizer(tmp_path / 'plain'))
  chat = vocabularies.load(tiny_tokenizer(tmp_path / 'chat', '{{1}}', True))
  assert plain.fingerprint == chat.fingerprint
  assert plain.digest != chat.digest
  debsum, g2p = (vocabularies.load(n) for n in vocabularies.EMBEDDED)
  assert len({plain.fingerprint, debsum.fingerprint, g2p.fingerprint}) == 3


def test_prompt_prefix_is_what_the_tokenizer_adds(tmp_path, tiny_tokenizer):
  plain = vocabularies.load(tiny_tokenizer(tmp_path / 'plain'))
  with_bos = vocabularies.load(tiny_tokenizer(tmp_path / 'bos', bos=True))
  assert (plain.prompt_prefix, plain.prompt_suffix) == ((), ())
  assert (with_bos.prompt_prefix, with_bos.prompt_suffix) == ((1,), ())
  assert with_bos.encode('a b') == [3, 4]


def test_without_pad_token_eos_pads(tmp_path, tiny_tokenizer):
  vocabulary = vocabularies.load(tiny_tokenizer(tmp_path))
  assert vocabulary.pad_id == vocabulary.eos_id == 2


def test_chat_needs_a_template(tmp_path, tiny_tokenizer):
  with pytest.raises(ValueError, match='no chat template'):
    vocabularies.load('debsum').chat('hello')
  with pytest.raises(ValueError, match='no chat template'):
    vocabularies.load(tiny_tokenizer(tmp_path)).chat('hello')


@pytest.mark.parametrize(
  'name', ['./nowhere', '/no/such/spiece.model', '~nobody-of-that-name/x']
)
def test_missing_path(name):
  with pytest.raises(FileNotFoundError, match='no tokenizer at'):
    vocabularies.load(name)


def test_unreachable_hub_names_the_way_out(monkeypatch):
  monkeypatch.setattr(hub, 'answers', lambda: False)
  with pytest.raises(FileNotFoundError, match='`:embedded`') as error:
    vocabularies.load('some-owner/some-tokenizer')
  assert '\n' not in str(error.value)


def test_a_full_disk_is_named(monkeypatch):
  import transformers

  def fail(*unused, **options):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(hub, 'answers', lambda: True)
  monkeypatch.setattr(transformers.AutoTokenizer, 'from_pretrained', fail)
  with pytest.raises(OSError, match='huggingface') as error:
    vocabularies.load('some-owner/some-tokenizer')
  assert error.value.errno == errno.ENOSPC


def test_other_files_are_refused(tmp_path):
  path = tmp_path / 'x.model'
  path.write_bytes(b'not a model')
  with pytest.raises(ValueError, match='not a SentencePiece model'):
    vocabularies.load(str(path))


def test_code_in_the_repository_is_refused(tmp_path):
  (tmp_path / 'tokenization_x.py').write_text(
    'raise SystemExit("this code ran")\nclass X: pass\n'
  )
  config = {'auto_map': {'AutoTokenizer': ['tokenization_x.X', None]}}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  with pytest.raises((ValueError, OSError)):
    vocabularies.load(str(tmp_path))


def test_sentencepiece_needs_no_tensorflow():
  code = (
    'import sys\n'
    'from kdjax.data import vocabularies, pipeline\n'
    "vocabulary = vocabularies.load('g2p')\n"
    "assert vocabulary.decode(vocabulary.encode('c a t')) == 'c a t'\n"
    "heavy = {'tensorflow', 'transformers', 'datasets', 'seqio', 'torch'}\n"
    'assert not heavy & set(sys.modules), heavy & set(sys.modules)\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
