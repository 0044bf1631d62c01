"""The models of a run: copied students, and heads of reward models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from kdjax import checks, models, roles, types
from kdjax.copied_layers import copied_layers
from kdjax.data import vocabularies
from kdjax.models import kernels

DEPTH = {'num_layers': 2, 'num_decoder_layers': 3}


@pytest.fixture(scope='module')
def vocabulary():
  return vocabularies.load('g2p')


@pytest.fixture(scope='module')
def teacher_dir(tiny, vocabulary, tmp_path_factory):
  """A teacher of 2 and 3 layers, with the task's tokenizer."""
  folder = tmp_path_factory.mktemp('teacher')
  config = {**tiny().teacher.config.to_dict(), **DEPTH}
  config['vocab_size'] = vocabulary.size
  made = models.from_config(config, jax.random.key(0))
  models.save_pretrained(folder, *made)
  vocabulary.save_pretrained(folder)
  return folder


def view(tiny, **overrides):
  return checks.validate(tiny(**overrides))


def test_a_student_may_be_made_of_some_of_its_layers(
  tiny, vocabulary, teacher_dir
):
  path = {'student__config': {}, 'student__path': str(teacher_dir)}
  whole = view(tiny, **path)
  copied = view(tiny, **path, student__layers={'decoder': 1})
  teacher, source = roles.load('student', whole, vocabulary)
  student, params = roles.load('student', copied, vocabulary)
  config = student.config
  assert (config.encoder_layers, config.decoder_layers) == (2, 1)
  expected = models.copy_layers((teacher, source), {'decoder': 1})[1]
  jax.tree.map(np.testing.assert_array_equal, params, expected)
  # The layer that Shleifer & Rush's table names.
  (chosen,) = copied_layers(3, 1)
  jax.tree.map(
    np.testing.assert_array_equal,
    params['decoder']['layers_0'],
    source['decoder'][f'layers_{chosen}'],
  )
  # All else is as it would be of the whole: dropout, ids, types.
  assert student.eos_ids == teacher.eos_ids
  assert student.pad_id == teacher.pad_id == vocabulary.pad_id
  assert student.num_tokens == teacher.num_tokens
  prompt = types.Prompt(jnp.ones((1, 3), jnp.int32), jnp.ones((1, 3), bool))
  tokens = jnp.ones((1, 2), jnp.int32)
  assert student.hidden_states(params, prompt, tokens).shape == (1, 2, 16)


def test_layers_that_are_not_there_are_named(tiny, vocabulary, teacher_dir):
  path = {'student__config': {}, 'student__path': str(teacher_dir)}
  c = view(tiny, **path, student__layers={'decoder': 4})
  with pytest.raises(ValueError, match='4 of 3 layers cannot be copied'):
    roles.load('student', c, vocabulary)


# The head of a reward model.

HEAD = {'kernel': np.arange(4.0, dtype=np.float32), 'bias': np.float32(2)}
PROJECTIONS = {'layer_0': {'projection': np.ones((2, 3), np.float32)}}


def load(tiny, folder):
  return roles.load_reward_head(view(tiny, reward__path=str(folder)))


@pytest.mark.parametrize(
  'params',
  [
    {'reward': HEAD},
    {'reward': HEAD, 'hidden': PROJECTIONS},
    # One head alone is it, whatever its term is called.
    {'judge': HEAD},
  ],
)
def test_the_head_that_a_run_leaves_is_found(tiny, tmp_path, params):
  roles.save_auxiliary(tmp_path, jax.tree.map(jnp.asarray, params))
  found = load(tiny, tmp_path)
  assert set(found) == {'kernel', 'bias'}
  for name, value in HEAD.items():
    np.testing.assert_array_equal(found[name], value)
    assert found[name].shape == np.shape(value)


def test_a_run_without_such_parameters_leaves_no_file(tmp_path):
  roles.save_auxiliary(tmp_path, {})
  assert not list(tmp_path.iterdir())


def test_a_directory_without_a_head_is_no_reward_model(tiny, tmp_path):
  with pytest.raises(
    FileNotFoundError,
    match=r'not a reward model: it lacks auxiliary.safetensors, .*preference_',
  ):
    load(tiny, tmp_path)
  with pytest.raises(FileNotFoundError, match='no model directory'):
    load(tiny, tmp_path / 'away')


@pytest.mark.parametrize(
  'params, missing',
  [
    ({'reward': {'kernel': HEAD['kernel']}}, r"no \['reward/bias'\]"),
    ({'hidden': PROJECTIONS}, r"no \['reward/bias', 'reward/kernel'\]"),
    ({'a': HEAD, 'b': HEAD}, r"no \['reward/bias', 'reward/kernel'\]"),
  ],
)
def test_what_a_head_lacks_is_named(tiny, tmp_path, params, missing):
  roles.save_auxiliary(tmp_path, params)
  with pytest.raises(ValueError, match=missing) as error:
    load(tiny, tmp_path)
  tensors = safetensors.numpy.load_file(tmp_path / roles.AUXILIARY)
  assert str(sorted(tensors)) in str(error.value)


@pytest.mark.parametrize('rank', [0, 4])
def test_what_models_take_is_known_before_they_are_loaded(
  tiny, vocabulary, rank
):
  c = checks.validate(
    tiny(
      student__config={},
      student__path='kdjax:g2p-student',
      student__weights='bfloat16' if rank else 'float32',
      student__lora={'rank': rank, 'targets': '/kernel$'},
      teacher__config={},
      teacher__path='kdjax:g2p-teacher',
      teacher__weights='int8',
    )
  )
  counts, stored, training = roles.account(c, ('student', 'teacher'))
  params = {
    role: roles.load(role, c, vocabulary)[1] for role in ('student', 'teacher')
  }
  sizes = {role: kernels.size(each) for role, each in params.items()}
  assert counts == {role: count for role, (count, _) in sizes.items()}
  assert stored == sum(room for _, room in sizes.values())
  flat = jax.tree_util.tree_leaves_with_path(params['student'])
  factors = sum(x.size for path, x in flat if 'lora_' in str(path[-1]))
  assert training == (factors if rank else counts['student'])
