"""Students made of their teacher's layers, against transformers."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from kdjax import models, testing, types

V, S, T = 37, 6, 5

T5 = dict(
  vocab_size=V,
  d_model=12,
  d_kv=5,
  d_ff=18,
  num_heads=3,
  decoder_start_token_id=0,
  num_layers=4,
  num_decoder_layers=3,
)


@pytest.fixture(scope='module')
def load(reference, decoder_configs):
  """Returns a function: name -> (model, parameters) of 3 layers or more."""

  @functools.cache
  def load(name, **options):
    if name == 't5':
      config = transformers.T5Config(**T5)
    else:
      config = decoder_configs[name]()
      if config.num_hidden_layers < 3:
        config.num_hidden_layers = 3
        if name == 'qwen2':
          config.layer_types = ['full_attention', *['sliding_attention'] * 2]
    return models.from_pretrained(reference(config)[1], **options)

  return load


def tokens(seed, *shape):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.integers(3, V, shape), jnp.int32)


PROMPT = types.Prompt(tokens(0, 2, S), jnp.ones((2, S), bool))
RESPONSE = tokens(1, 2, T)


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params):
  hidden = model.hidden_states(params, PROMPT, RESPONSE)
  return model.head(params, hidden)


def their_logits(directory, pair):
  ids, said = (
    torch.tensor(np.asarray(x)).long() for x in (PROMPT.tokens, RESPONSE)
  )
  if pair:
    auto = transformers.AutoModelForSeq2SeqLM
    start = torch.zeros((2, 1)).long()
    inputs = dict(input_ids=ids, decoder_input_ids=torch.cat([start, said], 1))
  else:
    auto = transformers.AutoModelForCausalLM
    inputs = dict(input_ids=torch.cat([ids, said], 1))
  theirs = auto.from_pretrained(directory, attn_implementation='eager').eval()
  with torch.no_grad():
    out = theirs(**inputs).logits.numpy()
  return theirs, out[:, -T - 1 : -1]


def same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


CHOICES = {
  't5': {'encoder': (0, 3), 'decoder': (2,)},
  'gpt2': (0, 2),
  'opt': (2, 1),
  'mistral': (1, 2),
  'qwen2': (1, 2),
  'gemma2': (1, 2),
}


@pytest.mark.parametrize('name', CHOICES)
def test_students_load_in_transformers_with_equal_logits(load, tmp_path, name):
  teacher = load(name)
  model, params = models.copy_layers(teacher, CHOICES[name])
  ours = logits(model, params)
  models.save_pretrained(tmp_path, model, params)
  theirs, expected = their_logits(tmp_path, pair=name == 't5')
  np.testing.assert_allclose(ours, expected, rtol=0, atol=3e-5)
  assert theirs.config.num_hidden_layers == 2
  reloaded = models.from_pretrained(tmp_path)
  config = reloaded[0].config
  if name == 'gpt2':  # it initialises the fewer layers with other numbers
    config = dataclasses.replace(config, output_std=model.config.output_std)
  assert config == model.config
  same(reloaded[1], params)
  assert np.abs(ours - logits(*teacher)).max() > 1e-2


@pytest.mark.parametrize('name', CHOICES)
@pytest.mark.parametrize('scan', [False, True])
def test_all_layers_make_the_teacher(load, name, scan):
  model, params = load(name, scan=scan)
  everything = (
    {'encoder': range(4), 'decoder': range(3)} if name == 't5' else range(3)
  )
  for layers in (everything, {}):
    student, copies = models.copy_layers((model, params), layers)
    assert student == model
    same(copies, params)


def test_layers_are_copied_in_the_order_given_and_nothing_else_changes(load):
  teacher, theirs = load('t5')
  _, ours = models.copy_layers(
    (teacher, theirs), {'encoder': (3, 0, 3), 'decoder': (1,)}
  )
  for i, source in enumerate((3, 0, 3)):
    same(ours['encoder'][f'layers_{i}'], theirs['encoder'][f'layers_{source}'])
  same(ours['decoder'], {'layers_0': theirs['decoder']['layers_1']})
  stacks = ('encoder', 'decoder')
  assert len(ours['encoder']) == 3
  for stack in stacks:
    ours.pop(stack)
  same(ours, {k: v for k, v in theirs.items() if k not in stacks})


@pytest.mark.parametrize('name', ['t5', 'gemma2'])
def test_scanned_and_unrolled_teachers_make_the_same_students(load, name):
  expected = logits(*models.copy_layers(load(name), CHOICES[name]))
  for teacher in (False, True):
    for student in (False, True):
      made = models.copy_layers(
        load(name, scan=teacher), CHOICES[name], scan=student
      )
      assert ('layers' in made[1]['decoder']) is student
      np.testing.assert_allclose(logits(*made), expected, rtol=0, atol=1e-5)


def test_a_students_student_keeps_the_kinds_of_its_layers(load):
  # Of sliding, full, sliding: by its number alone the last would be full.
  student = models.copy_layers(load('gemma2'), (1, 2))
  model, _ = models.copy_layers(student, (1, 1))
  assert student[0].config.windows == (None, 4)
  assert model.config.windows == (4, 4)
  kinds = json.loads(model.hf_config)['layer_types']
  assert kinds == ['sliding_attention'] * 2
  assert models.copy_layers(student, (0,))[0].config.windows == ()


def test_layers_of_silent_configs_keep_their_kinds():
  shape = dict(vocab_size=V, hidden_size=12, intermediate_size=18)
  shape |= dict(num_attention_heads=2, num_key_value_heads=1, head_dim=6)
  config = {'model_type': 'gemma2', **shape, 'num_hidden_layers': 3}
  teacher = models.from_config(config, jax.random.key(0), scan=True)
  model, _ = models.copy_layers(teacher, (1, 2))
  kinds = json.loads(model.hf_config)['layer_types']
  assert kinds == ['full_attention', 'sliding_attention']
  assert model.config.windows == (None, 4096)
  t5 = {k: v for k, v in T5.items() if k != 'num_decoder_layers'}
  config = {'model_type': 't5', **t5}
  teacher = models.from_config(config, jax.random.key(0), scan=True)
  model, _ = models.copy_layers(teacher, {'encoder': 2})
  hf = json.loads(model.hf_config)
  assert (hf['num_layers'], hf['num_decoder_layers']) == (2, 4)


def test_numbers_of_layers_choose_by_the_table(load):
  teacher = load('t5')
  same(
    models.copy_layers(teacher, 2)[1],
    models.copy_layers(teacher, {'encoder': (0, 3), 'decoder': (0, 2)})[1],
  )
  same(
    models.copy_layers(teacher, {'decoder': 1})[1],
    models.copy_layers(teacher, {'encoder': range(4), 'decoder': [0]})[1],
  )


def test_options_are_those_of_from_pretrained_or_the_teachers(load):
  teacher = load('gpt2', dropout=0.3, dtype=jnp.bfloat16, num_tokens=30)
  model, _ = models.copy_layers(teacher, 1)
  assert model == dataclasses.replace(
    teacher[0], config=model.config, hf_config=model.hf_config
  )
  assert model.config == dataclasses.replace(teacher[0].config, layers=1)
  model, _ = models.copy_layers(
    teacher, 1, dropout=0.2, dtype=jnp.float32, num_tokens=20, remat=True
  )
  c = model.config
  assert (c.dropout, c.attention_dropout, c.embedding_dropout) == (0.2,) * 3
  assert (c.dtype, c.remat, c.scan) == (jnp.float32, True, False)
  assert model.num_tokens == 20


def test_the_student_shares_no_memory_with_its_teacher(load):
  model, params = load('gpt2')
  params = jax.tree.map(np.array, params)
  before = jax.tree.map(np.array, params)
  _, copies = models.copy_layers((model, params), (0, 1, 2))
  for leaf in jax.tree.leaves(copies):
    leaf += 1
  same(params, before)


def test_what_cannot_be_copied_is_named(load):
  gpt2, t5 = load('gpt2'), load('t5')
  for layers in ((0, 3), (-1,), ()):
    with pytest.raises(ValueError, match=r'decoder.*from 0 to 2.* has 3'):
      models.copy_layers(gpt2, layers)
  for count in (0, 4):
    with pytest.raises(ValueError, match=f'{count} of 3.*1 to 3'):
      models.copy_layers(gpt2, count)
  with pytest.raises(ValueError, match=r"\['encoder'\].*\['decoder'\]"):
    models.copy_layers(gpt2, {'encoder': 1})
  with pytest.raises(ValueError, match='encoder.*from 0 to 3'):
    models.copy_layers(t5, {'encoder': (4,)})
  with pytest.raises(ValueError, match='TabularModel.*from_pretrained'):
    models.copy_layers(testing.tabular(jax.random.key(0)), 1)
