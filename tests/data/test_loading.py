"""Materialised tasks: the tokenizer's own ids, cached, within the limits."""

import json
import re

import numpy as np
import pytest

from kdjax.data import faults, loading, tasks, vocabularies

ROWS = [
  {'q': 'fast mail server', 'a': 'mail transport agent'},
  {'q': 'x', 'a': 'nothing'},
  {'q': 'a library of naïve things ' * 4, 'a': 'library ' * 9},
]
CHAT = (
  "{% for m in messages %}{{m['role']}} : {{m['content']}}{% endfor %}"
  '{% if add_generation_prompt %} bot :{% endif %}'
)


@pytest.fixture
def toy(tmp_path):
  """A local task; loads it into a cache of its own."""

  def load(
    rows=ROWS, vocabulary='debsum', target='a', rejected=None, **options
  ):
    path = tmp_path / 'rows.jsonl'
    path.write_text(''.join(json.dumps(r) + '\n' for r in rows))
    columns = {'input': 'q', 'target': target, 'rejected': rejected}
    task = tasks.get('file', path=str(path), **columns)
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
  rows = [{'q': 'a b', 'a': 'c'}, {'q': 'b', 'a': 'b b x'}]
  examples = toy(rows, name)
  assert lists(examples.prompts) == [[1, 3, 4], [1, 4]]
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


def test_cache_hit_equals_fresh(toy, monkeypatch):
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


@pytest.mark.parametrize('change', ['flip', 'cut', 'remove', 'empty'])
def test_a_damaged_cache_is_made_again(change, toy, tmp_path, caplog):
  fresh = lists(toy().prompts)
  (directory,) = (tmp_path / 'cache').iterdir()
  path = directory / 'prompts.values.npy'
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[-1] ^= 1
  if change == 'empty':
    for each in directory.iterdir():
      each.unlink()
  elif change == 'remove':
    path.unlink()
  else:
    path.write_bytes(flipped if change == 'flip' else whole[:-1])
  with caplog.at_level('WARNING', 'kdjax'):
    again = toy()
  assert 'The tokens are made again' in caplog.text
  assert lists(again.prompts) == fresh
  assert path.read_bytes() == whole
  caplog.clear()
  toy()
  assert not caplog.text
  assert [p.name for p in directory.parent.iterdir()] == [directory.name]


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


def test_dropping(toy, caplog):
  faults.warn.cache_clear()
  for _ in range(2):
    kept = toy(max_prompt_tokens=6, on_long='drop')
  (told,) = caplog.messages
  assert re.search(r'longer than max_prompt_tokens=6 .*: on_long=drop$', told)
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


PAIRS = [
  {'q': 'a', 'a': 'b', 'worse': 'c ' * 9},
  {'q': 'b', 'a': 'c ' * 9, 'worse': 'a'},
  {'q': 'a b c ' * 9, 'a': 'c', 'worse': 'a'},
  {'q': 'c', 'a': 'c', 'worse': 'b'},
]


def test_pairs(toy, tmp_path, tiny_tokenizer):
  options = {
    'rows': PAIRS,
    'vocabulary': tiny_tokenizer(tmp_path / 'tokenizer'),
    'rejected': 'worse',
  }
  whole = toy(**options)
  assert lists(whole.responses) == [[4, 2], [5] * 9 + [2], [5, 2], [5, 2]]
  assert lists(whole.rejected) == [[5] * 9 + [2], [3, 2], [3, 2], [4, 2]]
  with pytest.raises(ValueError, match='1 of 4 rejected responses are longer'):
    toy(max_response_tokens=9, **options)
  cut = toy(max_response_tokens=3, on_long='truncate', **options)
  assert lists(cut.responses) == [row[:3] for row in lists(whole.responses)]
  assert lists(cut.rejected) == [row[:3] for row in lists(whole.rejected)]
  kept = toy(
    max_prompt_tokens=9, max_response_tokens=9, on_long='drop', **options
  )
  assert list(kept.ids) == ['3']
  assert lists(kept.rejected) == [[4, 2]]
  assert toy(rows=PAIRS, vocabulary=options['vocabulary']).rejected is None


def test_labels_on_some_examples_only(toy):
  rows = [dict(row, a=[] if row['q'] == 'a' else 'x') for row in PAIRS]
  with pytest.raises(ValueError, match='line 1: an empty list in .*label all'):
    toy(rows)


TEMPLATES = ('{input} in one line:', 'Package {input}')


def test_teacher_prompts_are_the_prompts_in_templates(toy):
  examples = toy(teacher_prompts=TEMPLATES)
  vocabulary = vocabularies.load('debsum')
  assert len(examples.teacher_prompts) == 2
  for template, prompts in zip(TEMPLATES, examples.teacher_prompts):
    texts = [template.replace('{input}', r['q']) for r in ROWS]
    assert lists(prompts) == [
      [*vocabulary.encode(text), vocabulary.eos_id] for text in texts
    ]
  plain = toy()
  assert plain.teacher_prompts == ()
  # The student reads the raw prompt, and the records of responses name it.
  assert lists(examples.prompts) == lists(plain.prompts)
  assert list(examples.inputs) == list(plain.inputs)


def test_teacher_prompts_take_braces_and_chat_templates(
  toy, tmp_path, tiny_tokenizer
):
  name = tiny_tokenizer(tmp_path / 'tokenizer', CHAT, bos=True)
  rows = [{'q': 'a {input} {0}', 'a': 'c'}]
  options = {'rows': rows, 'vocabulary': name, 'max_prompt_tokens': 99}
  (prompts,) = toy(teacher_prompts=['b {input} c'], **options).teacher_prompts
  assert lists(prompts) == [[1, 4, 3, 0, 0, 5]]
  (prompts,) = toy(
    teacher_prompts=['b {input} c'], chat_template=True, **options
  ).teacher_prompts
  assert lists(prompts) == [[6, 8, 4, 3, 0, 0, 5, 7, 8]]
  cut = toy(
    teacher_prompts=['b {input} c', '{input}'],
    chat_template=True,
    on_long='truncate',
    max_teacher_prompt_tokens=7,
    **options,
  )
  assert [lists(p) for p in cut.teacher_prompts] == [
    [[6, 8, 4, 3, 5, 7, 8]],
    [[6, 8, 3, 0, 0, 7, 8]],
  ]


def test_truncation_keeps_what_ends_a_template(toy):
  options = {'on_long': 'truncate', 'teacher_prompts': TEMPLATES}
  examples = toy(max_prompt_tokens=9, **options)
  vocabulary = vocabularies.load('debsum')
  for template, prompts in zip(TEMPLATES, examples.teacher_prompts):
    assert prompts.lengths.max() == 9
    for prompt in prompts:
      assert prompt[-1] == vocabulary.eos_id
      before, after = template.split('{input}')
      text = vocabulary.decode(prompt)
      assert text.startswith(before.strip()) and text.endswith(after.strip())
  # The limit is the teacher's own.
  own = toy(max_prompt_tokens=9, max_teacher_prompt_tokens=60, **options)
  assert own.prompts.lengths.max() == 9
  assert own.teacher_prompts[0].lengths.max() > 9
  with pytest.raises(ValueError, match='max_teacher_prompt_tokens=3 leaves no'):
    toy(max_teacher_prompt_tokens=3, **options)


def test_a_long_teacher_prompt_drops_the_example(toy):
  longest = int(toy().prompts.lengths.max())
  options = {'teacher_prompts': TEMPLATES, 'max_prompt_tokens': longest}
  with pytest.raises(ValueError, match='1 of 3 teacher prompts are longer'):
    toy(**options)
  kept = toy(on_long='drop', **options)
  assert list(kept.ids) == ['0', '1']
  parts = (kept.prompts, kept.responses, *kept.teacher_prompts)
  assert [len(part) for part in parts] == [2] * 4


def test_teacher_prompts_are_cached(toy, monkeypatch):
  fresh = toy(teacher_prompts=TEMPLATES)
  monkeypatch.setattr(loading, '_tokenise', None)
  cached = toy(teacher_prompts=list(TEMPLATES))
  for one, other in zip(cached.teacher_prompts, fresh.teacher_prompts):
    assert lists(one) == lists(other)
  with pytest.raises(TypeError):
    toy(teacher_prompts=TEMPLATES[::-1])


@pytest.mark.parametrize('templates', [['Sum up:'], '{input}'])
def test_templates_hold_the_input(templates, toy):
  with pytest.raises(ValueError, match='has no {input}'):
    toy(teacher_prompts=templates)


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


@pytest.mark.parametrize('bos', [None, True])
def test_long_texts_have_the_same_tokens(
  bos, toy, tmp_path, tiny_tokenizer, monkeypatch
):
  """They go around TensorFlow, whose tokenizer is slow on them."""
  name = tiny_tokenizer(tmp_path / 'tokenizer', bos=True) if bos else 'debsum'
  whole = toy(vocabulary=name, cache_dir=tmp_path / 'one')
  monkeypatch.setattr(loading, '_LONG', 10)
  around = toy(vocabulary=name, cache_dir=tmp_path / 'other')
  assert lists(around.prompts) == lists(whole.prompts)
  assert lists(around.responses) == lists(whole.responses)


def test_bad_examples(toy, caplog):
  rows = [*ROWS, {'q': 'x'}, {**ROWS[0], 'a': ''}, {'q': 'last', 'a': 'one'}]
  with pytest.raises(ValueError, match=r"line 4: nothing in the column 'a'"):
    toy(rows)
  for _ in range(2):  # made, then read from the cache
    examples = toy(rows, on_bad_example='skip')
    assert list(examples.ids) == ['0', '1', '2', '5']
    assert sum(examples.left_out.counts.values()) == 2
  told = "left out 1 empty text in the column 'a' (line 5), 1 nothing in the"
  assert f'file/train: {told}' in caplog.text
  with pytest.raises(ValueError, match='expected error or skip'):
    toy(on_bad_example='drop')
