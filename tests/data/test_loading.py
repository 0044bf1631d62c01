"""Materialised tasks: the tokenizer's own ids, cached, within the limits."""

import json

import numpy as np
import pytest

from kdjax.data import loading, tasks, vocabularies

ROWS = [
  {'q': 'fast mail server', 'a': 'mail transport agent'},
  {'q': '', 'a': 'nothing'},
  {'q': 'a library of naïve things ' * 4, 'a': 'library ' * 9},
]
CHAT = (
  "{% for m in messages %}{{m['role']}} : {{m['content']}}{% endfor %}"
  '{% if add_generation_prompt %} bot :{% endif %}'
)


@pytest.fixture
def toy(tmp_path):
  """A local task; loads it into a cache of its own."""

  def load(rows=ROWS, vocabulary='debsum', target='a', **options):
    path = tmp_path / 'rows.jsonl'
    path.write_text(''.join(json.dumps(r) + '\n' for r in rows))
    task = tasks.get('file', path=str(path), input='q', target=target)
    options = {
      'max_prompt_tokens': 99,
      'max_response_tokens': 99,
      'cache_dir': tmp_path / 'cache',
      **options,
    }
    return loading.load(task, 'train', vocabulary, **options)

  return load


def lists(ragged):
  return [row.tolist() for row in ragged]


def expected(vocabulary, column, eos):
  return [vocabulary.encode(r[column]) + list(eos) for r in ROWS]


def test_seqio_gives_the_tokenizers_ids(toy):
  examples = toy()
  vocabulary = vocabularies.load('debsum')
  eos = [vocabulary.eos_id]
  assert lists(examples.prompts) == expected(vocabulary, 'q', eos)
  assert lists(examples.responses) == expected(vocabulary, 'a', eos)
  assert examples.vocabulary_fingerprint == vocabulary.fingerprint
  assert list(examples.inputs) == [r['q'] for r in ROWS]
  assert list(examples.references) == [(r['a'],) for r in ROWS]


def test_hugging_face_tokenizers_go_the_same_way(toy, tmp_path, tiny_tokenizer):
  name = tiny_tokenizer(tmp_path / 'tokenizer', bos=True)
  rows = [{'q': 'a b', 'a': 'c'}, {'q': '', 'a': 'b b x'}]
  examples = toy(rows, name)
  assert lists(examples.prompts) == [[1, 3, 4], [1]]
  assert lists(examples.responses) == [[5, 2], [4, 4, 0, 2]]


def test_chat_template(toy, tmp_path, tiny_tokenizer):
  name = tiny_tokenizer(tmp_path / 'tokenizer', CHAT, bos=True)
  rows = [{'q': 'a b c', 'a': 'c'}]
  examples = toy(rows, name, chat_template=True)
  # The template writes all special tokens itself: no <s> is put in front.
  assert examples.inputs[0] == 'user : a b c bot :'
  assert lists(examples.prompts) == [[6, 8, 3, 4, 5, 7, 8]]
  cut = toy(
    rows, name, chat_template=True, max_prompt_tokens=5, on_long='truncate'
  )
  assert lists(cut.prompts) == [[6, 8, 3, 7, 8]]
  with pytest.raises(ValueError, match='no chat template'):
    toy(chat_template=True)


def test_cache_hit_equals_fresh(toy, tmp_path, monkeypatch):
  fresh = toy()
  monkeypatch.setattr(loading, '_tokenise', None)
  cached = toy()
  assert lists(cached.prompts) == lists(fresh.prompts)
  assert lists(cached.responses) == lists(fresh.responses)
  assert list(cached.ids) == list(fresh.ids)
  assert list(cached.references) == list(fresh.references)
  # Limits apply after the cache, so that changing them reads it again.
  assert len(toy(max_response_tokens=5, on_long='drop')) == 2
  for change in ({'rows': ROWS[:2]}, {'vocabulary': 'g2p'}, {'limit': 1}):
    with pytest.raises(TypeError):
      toy(**change)


def test_an_unwritable_cache_is_no_obstacle(toy, tmp_path):
  (tmp_path / 'file').write_text('')
  assert len(toy(cache_dir=tmp_path / 'file')) == 3


def test_truncation_keeps_what_ends_a_prompt(toy):
  whole, cut = (
    toy(),
    toy(max_prompt_tokens=6, max_response_tokens=4, on_long='truncate'),
  )
  for long, short in zip(lists(whole.prompts), lists(cut.prompts)):
    assert short == (long if len(long) <= 6 else [*long[:5], long[-1]])
  for long, short in zip(lists(whole.responses), lists(cut.responses)):
    assert short == long[:4]


def test_dropping(toy):
  kept = toy(max_prompt_tokens=6, on_long='drop')
  assert list(kept.ids) == ['0', '1']
  with pytest.raises(ValueError, match='none is left'):
    toy(max_response_tokens=1, on_long='drop')


def test_too_long_says_how_many_and_what_helps(toy):
  longest = int(toy().prompts.lengths.max())
  with pytest.raises(ValueError) as error:
    toy(max_prompt_tokens=8)
  for part in ('1 of 3 prompts', f'the longest has {longest}', 'on_long'):
    assert part in str(error.value)


def test_unlabelled(toy):
  examples = toy(target=None)
  assert examples.responses is None
  assert list(examples.references) == [()] * 3


def test_limit_and_ids(toy):
  assert list(toy(limit=2).ids) == ['0', '1']
  with pytest.raises(ValueError, match='limit=0'):
    toy(limit=0)


def test_empty(toy):
  with pytest.raises(ValueError, match='is empty'):
    toy(rows=[])


def test_wrong_arguments():
  with pytest.raises(ValueError, match='expected error, truncate or drop'):
    loading.load('g2p', 'test', 'g2p', on_long='cut')
  with pytest.raises(ValueError, match='no split .dev., only train'):
    loading.load('g2p', 'dev', 'g2p')


def test_embedded_task(tmp_path):
  examples = loading.load('g2p', 'test', 'g2p', limit=50, cache_dir=tmp_path)
  vocabulary = vocabularies.load('g2p')
  assert len(examples) == 50
  for i in range(50):
    word, sounds = examples.inputs[i], examples.references[i]
    assert vocabulary.decode(examples.prompts[i]) == word
    assert vocabulary.decode(examples.responses[i]) == sounds[0]
    assert vocabulary.encode(word).count(2) == 0
    assert np.sum(examples.responses[i] == vocabulary.eos_id) == 1
