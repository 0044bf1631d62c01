"""Promise 11: a tokenizer's files run no code, and are loaded or refused."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from kdjax.data import vocabularies
from tests.reliability.hostile import CLEAR

PROMISE = 11
OWN = 'open({!r}, "w").close()\nclass Own: pass\n'


@pytest.fixture
def words(tmp_path):
  """A Hugging Face tokenizer's directory, to be tampered with."""
  folder = tmp_path / 'words'
  vocabularies.load('g2p').save_pretrained(folder)
  (folder / 'spiece.model').unlink()
  return folder


def edit(path, **changes):
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
  'changes',
  [
    {'auto_map': {'AutoTokenizer': ['own.Own', 'own.Own']}},
    {'auto_map': {'AutoTokenizer': ['own.Own', None]}, 'tokenizer_class': None},
    {'auto_map': 'own.Own', 'tokenizer_class': 'Own'},
    {'tokenizer_class': 'own.Own'},
    {'tokenizer_class': 'os.system'},
    {'trust_remote_code': True, 'auto_map': {'AutoTokenizer': ['own.Own', '']}},
  ],
)
def test_no_code_of_a_tokenizer_runs(changes, words, tmp_path, tried):
  sprung = tmp_path / 'sprung'
  (words / 'own.py').write_text(OWN.format(str(sprung)))
  edit(words / 'tokenizer_config.json', **changes)
  try:
    vocabularies.load(str(words))
  except CLEAR as error:
    assert str(error)
  assert not sprung.exists()
  tried(PROMISE, 'a tokenizer that brings code', 1)


@pytest.mark.parametrize('key', ['tokenizer_file', 'vocab_file', 'merges_file'])
def test_no_file_is_read_elsewhere(key, words, tmp_path, tried):
  """What the config says of files isn't believed."""
  elsewhere = tmp_path / 'elsewhere.json'
  found = json.loads((words / 'tokenizer.json').read_text())
  found['added_tokens'].append(
    {**found['added_tokens'][0], 'content': '<secret>', 'id': 5000}
  )
  elsewhere.write_text(json.dumps(found))
  edit(words / 'tokenizer_config.json', **{key: str(elsewhere)})
  try:
    assert '<secret>' not in vocabularies.load(str(words)).tokenizer.get_vocab()
  except CLEAR as error:
    assert str(error)
  tried(PROMISE, 'a tokenizer whose config names a file elsewhere', 1)


@pytest.fixture
def bare(tmp_path):
  """The directory of a tokenizer of two words that adds nothing to its JSON."""
  model = {
    'type': 'WordPiece',
    'unk_token': '[UNK]',
    'continuing_subword_prefix': '##',
    'max_input_chars_per_word': 9,
    'vocab': {'a': 0, '</s>': 1},
  }
  settings = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'eos_token': '</s>',
  }
  folder = tmp_path / 'bare'
  folder.mkdir()
  (folder / 'tokenizer.json').write_text(
    json.dumps({'version': '1.0', 'model': model, 'added_tokens': []})
  )
  (folder / 'tokenizer_config.json').write_text(json.dumps(settings))
  return folder


def test_an_id_that_would_take_all_memory_is_refused(bare, tried):
  path = bare / 'tokenizer.json'
  found = json.loads(path.read_text())
  found['model']['vocab']['b'] = 2**32 - 2
  path.write_text(json.dumps(found))
  with pytest.raises(ValueError, match='gives a token the id 4294967294'):
    vocabularies.load(str(bare))
  tried(PROMISE, 'a tokenizer whose ids would take all memory', 1)


def test_ids_around_texts_are_of_the_vocabulary(bare, tried):
  ends = {'id': '</s>', 'ids': [999_999], 'tokens': ['</s>']}
  text = {'Sequence': {'id': 'A', 'type_id': 0}}
  end = {'SpecialToken': {'id': '</s>', 'type_id': 0}}
  processor = {
    'type': 'TemplateProcessing',
    'single': [text, end],
    'pair': [text, {'Sequence': {'id': 'B', 'type_id': 0}}],
    'special_tokens': {'</s>': ends},
  }
  edit(bare / 'tokenizer.json', post_processor=processor)
  with pytest.raises(ValueError, match=r'puts the ids \[999999\] into texts'):
    vocabularies.load(str(bare))
  tried(PROMISE, 'a tokenizer that puts ids into texts that it has not', 1)


def test_a_text_that_cannot_be_encoded_names_the_tokenizer(bare, tried):
  vocabulary = vocabularies.load(str(bare))
  with pytest.raises(ValueError, match=f'{bare}.*UNK'):
    vocabulary.encode('b')
  tried(PROMISE, 'a tokenizer that fails at a text', 1)


@pytest.mark.parametrize(
  'name', ['tokenizer.json', 'tokenizer_config.json', 'vocab.txt']
)
def test_links_that_lead_out_are_not_followed(name, words, tmp_path, tried):
  path, elsewhere = words / name, tmp_path / 'elsewhere'
  path.touch()
  path.rename(elsewhere)
  path.symlink_to(elsewhere)
  with pytest.raises(ValueError, match=f'{name} is a link to'):
    vocabularies.load(str(words))
  tried(PROMISE, 'a link out of the directory, to itself, or a pipe', 1)


TEMPLATES = {
  'classes': "{{ ''.__class__.__mro__[1].__subclasses__() }}",
  'globals': "{{ raise_exception.__globals__['os'].system('true') }}",
  'cycler': "{{ cycler.__init__.__globals__.os.system('true') }}",
  'file': "{% include '/etc/passwd' %}",
  'import': "{% import 'os' as os %}{{ os.name }}",
  'range': '{% for i in range(10 ** 9) %}x{% endfor %}',
  'attribute': "{{ messages|map(attribute='__class__')|list }}",
  'no template': '{% for',
  'endless macro': '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}',
}


@pytest.mark.parametrize('name', TEMPLATES)
def test_chat_templates_stay_in_their_sandbox(name, words, tried):
  (words / 'chat_template.jinja').write_text(TEMPLATES[name])
  vocabulary = vocabularies.load(str(words))
  try:
    prompt = vocabulary.chat('hello')
  except ValueError as error:
    assert 'chat template' in str(error)
  else:
    assert '<class' not in prompt and 'root' not in prompt
    assert 'posix' not in prompt
  tried(PROMISE, 'a chat template that reaches out of its sandbox', 1)


# In a process of its own: C++ and Rust may end all of it, and a loop has none.
FUZZ = """
import pathlib, random, sys
from kdjax.data import vocabularies
folder, name, first, count = sys.argv[1:]
path = pathlib.Path(folder) / name
whole = path.read_bytes()
for seed in range(int(first), int(first) + int(count)):
  rng = random.Random(seed)
  content = bytearray(whole)
  for _ in range(rng.choice([1, 1, 3, 30])):
    kind, at = rng.randrange(4), rng.randrange(len(content))
    if kind == 0:
      content[at] = rng.randrange(256)
    elif kind == 1:
      del content[at : at + rng.choice([1, 10, 1000])]
    elif kind == 2:
      content[at:at] = rng.choice([b'9', b'null', b'[', b'-1', b'"', bytes(9)])
    else:
      to = rng.randrange(len(content))
      content[at : at + 40] = content[to : to + 40]
    content = content or bytearray(1)
  path.write_bytes(content)
  print(seed, flush=True)
  vocabularies.load.cache_clear()
  try:
    words = vocabularies.load(str(path if name == 'spiece.model' else folder))
    words.decode(words.encode('a b\\u0301 c'))
  except (ValueError, OSError) as error:
    assert str(error)
print('done')
"""


def survive(folder, name, first, count):
  """Runs the fuzzer; a crash or a hang of its process tells its seed."""
  out = subprocess.run(
    [sys.executable, '-c', FUZZ, str(folder), name, str(first), str(count)],
    env={**os.environ, 'HF_HUB_OFFLINE': '1'},
    capture_output=True,
    text=True,
    timeout=60 + count,
  )
  lines = out.stdout.split()
  assert lines[-1:] == ['done'], (
    out.returncode,
    lines[-1:],
    out.stderr[-2000:],
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', ['tokenizer.json', 'tokenizer_config.json', 'spiece.model']
)
@pytest.mark.parametrize('source', ['g2p', 'debsum'])
def test_files_with_anything_changed(name, source, tmp_path, tries, tried):
  folder = tmp_path / 'words'
  vocabularies.load(source).save_pretrained(folder)
  count = tries(15, 400)
  survive(folder, name, 0, count)
  tried(PROMISE, 'a tokenizer file with bytes changed, cut or moved', count)


def test_a_sentencepiece_model_of_any_bytes(tmp_path, tried):
  path = tmp_path / 'spiece.model'
  whole = pathlib.Path(
    vocabularies.ASSETS / 'g2p' / 'spiece.model'
  ).read_bytes()
  for content in (
    b'',
    b'\0' * 99,
    whole[:50],
    whole[50:],
    b'{}' * 9,
    whole * 2,
  ):
    path.write_bytes(content)
    vocabularies.load.cache_clear()
    with pytest.raises(CLEAR, match='spiece.model'):
      vocabularies.load(str(path))
    tried(PROMISE, 'a SentencePiece model that is none', 1)
