"""Tests of how models, tokenizer and data are put together."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import build, checks, models, state
from kdjax.data import tasks, vocabularies


def build_run(c):
  return build.build(checks.validate(c))


@pytest.fixture(scope='module')
def model_dir(tiny, tmp_path_factory):
  """A model directory of the tiny architecture, with the task's tokenizer."""
  folder = tmp_path_factory.mktemp('model')
  vocabulary = vocabularies.load('g2p')
  config = {**tiny().student.config.to_dict(), 'vocab_size': vocabulary.size}
  model, params = models.from_config(config, jax.random.key(0))
  models.save_pretrained(folder, model, params)
  vocabulary.save_pretrained(folder)
  return folder


def test_models_take_the_ids_of_the_tokenizer(tiny):
  run = build_run(tiny())
  for model in (run.student, run.teacher):
    assert model.vocab_size == model.num_tokens == run.vocabulary.size
    assert model.eos_ids == (run.vocabulary.eos_id,)
    assert model.pad_id == run.vocabulary.pad_id
  first = jax.tree.leaves(run.student_params)[0]
  other = jax.tree.leaves(run.teacher_params)[0]
  assert np.any(first != other), 'two models of one config start differently'


def test_model_of_other_ends_ends_with_the_tokenizer_too(
  tiny, model_dir, tmp_path
):
  shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'generation_config.json'
  path.write_text(json.dumps({'eos_token_id': [7, 9], 'pad_token_id': 0}))
  run = build_run(tiny(student__config={}, student__path=str(tmp_path)))
  assert run.student.eos_ids == (7, 9, run.vocabulary.eos_id)


@pytest.mark.slow
def test_padded_vocabulary_is_neither_refused_nor_sampled(tiny):
  """As Qwen2's: one tokenizer, embedding tables padded to different sizes."""
  architecture = tiny().student.config.to_dict()
  run = build_run(
    tiny(
      student__config={**architecture, 'vocab_size': 80},
      teacher__config={**architecture, 'vocab_size': 96},
      student__dropout=0.0,
    )
  )
  size = run.vocabulary.size
  assert (run.student.vocab_size, run.teacher.vocab_size) == (80, 96)
  assert run.student.num_tokens == run.teacher.num_tokens == size
  # Padded rows of huge logits would be sampled always, were they not left out,
  # and take all the mass that divergences see.
  params = run.student_params
  table = jnp.asarray(params['shared']['embedding'])
  padded = jnp.sum(jnp.abs(table), 0) * 1e4
  params['shared']['embedding'] = table.at[size:].set(padded)
  with jax.set_mesh(run.mesh):
    program, data = run.program(), run.train_iterator()
    batch = run.place(next(data))
    current = state.create({'student': params}, run.optimizer(), seed=0)
    views, _ = program.rollout(current, run.frozen, batch, 8)
    _, found = program.update(current, run.frozen, batch, 8)
  assert int(jnp.max(views[0].tokens)) < size
  assert np.isfinite(found['loss'][0]) and not found['skipped'][0]


def test_too_small_a_vocabulary_is_refused(tiny):
  small = {**tiny().student.config.to_dict(), 'vocab_size': 60}
  with pytest.raises(ValueError, match='60 embeddings.*69 tokens'):
    build_run(tiny(teacher__config=small))


def test_teacher_with_another_tokenizer_is_refused(tiny, model_dir, tmp_path):
  shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
  for name in ('tokenizer.json', 'tokenizer_config.json', 'spiece.model'):
    (tmp_path / name).unlink(missing_ok=True)
  debsum = vocabularies.load('debsum')
  debsum.save_pretrained(tmp_path)
  with pytest.raises(ValueError, match='8100 tokens.*share one tokenizer'):
    build_run(tiny(teacher__config={}, teacher__path=str(tmp_path)))
  # The same tokenizer, whatever file holds it, is fine.
  run = build_run(tiny(teacher__config={}, teacher__path=str(model_dir)))
  assert run.teacher.num_tokens == run.vocabulary.size


def test_corrupt_weights_are_named_and_left_alone(
  tiny, model_dir, tmp_path, contents
):
  shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-100])
  before = contents(tmp_path)
  with pytest.raises(ValueError, match='model.safetensors.*again'):
    build_run(tiny(student__config={}, student__path=str(tmp_path)))
  assert contents(tmp_path) == before


def test_weights_of_another_shape_are_refused(tiny, model_dir, tmp_path):
  shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'config.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), 'd_ff': 48}))
  with pytest.raises(ValueError, match=r'\(16, 32\).*\(16, 48\)'):
    build_run(tiny(student__config={}, student__path=str(tmp_path)))


def test_more_tokens_than_positions_are_refused(tiny):
  gpt2 = {
    'model_type': 'gpt2',
    'n_embd': 16,
    'n_head': 2,
    'n_layer': 1,
    'n_positions': 13,
  }
  with pytest.raises(ValueError, match='=8 and .*=6 add up to 14.* 13 pos'):
    build_run(tiny(student__config=gpt2))


def test_long_prompts_empty_files_and_missing_answers_are_refused(
  tiny, tmp_path
):
  run = build_run(tiny())

  def with_task(**changes):
    c = checks.validate(tiny(**changes))
    task = tasks.get(c.task.name, **c.task.args)
    return dataclasses.replace(run, config=c, task=task)

  with pytest.raises(ValueError, match='max_prompt_tokens=3.*on_long'):
    with_task(task__max_prompt_tokens=3).train_iterator()
  with_task(
    task__max_prompt_tokens=3, task__on_long='truncate'
  ).train_iterator()
  (tmp_path / 'train.jsonl').write_text('')
  path = str(tmp_path / '{split}.jsonl')
  with pytest.raises(ValueError, match="'train' of the task 'file' is empty"):
    with_task(task__args__path=path).train_iterator()
  with pytest.raises(ValueError, match='gold responses.*task.args.target'):
    with_task(task__args__target=None).train_iterator()
  with pytest.raises(ValueError, match='batch_size=65.*64 examples'):
    with_task(batch_size=65, micro_batch_size=0).train_iterator()


def test_the_smaller_limit_holds(tiny):
  run = build_run(tiny(task__limit=10))
  assert len(run.examples('train')) == 10
  assert len(run.examples('train', 4)) == 4
  assert len(run.examples('train', 40)) == 10
