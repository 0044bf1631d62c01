"""Runs of LoRA students against narrow teachers, from config to export."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import build, checks, models, report, train, types

LLAMA = {
  'model_type': 'llama',
  'hidden_size': 16,
  'intermediate_size': 32,
  'num_hidden_layers': 2,
  'num_attention_heads': 2,
  'max_position_embeddings': 64,
}


def logprobs(model, params):
  prompt = types.Prompt(jnp.array([[5, 6, 7]]), jnp.ones((1, 3), bool))
  return models.logprobs(model, params, prompt, jnp.array([[8, 9, 3]]))


@pytest.mark.slow
@pytest.mark.parametrize('weights', ['bfloat16', 'int8'])
@pytest.mark.parametrize('family', ['t5', 'llama'])
def test_the_export_is_the_student_that_trained(
  tiny, tmp_path, family, weights
):
  changes = {'student__config': LLAMA, 'teacher__config': LLAMA}
  c = tiny(
    **(changes if family == 'llama' else {}),
    student__lora={'rank': 2},
    student__weights=weights,
    student__scan=weights == 'int8',
    student__remat=True,
    student__remat_policy='dots_no_batch',
    teacher__weights=weights,
    sampling__dtype='bfloat16',
    steps=10,
    eval__every=0,
    eval__test_examples=4,
    checkpoint__every=5,
    checkpoint__best_metric='',
    checkpoint__best_mode='max',
    checkpoint__export='last',
  )
  config = checks.validate(c)
  train.train(config, str(tmp_path))
  run = build.build(config)
  with (
    jax.set_mesh(run.mesh),
    report.open_checkpoints(run, str(tmp_path), read_only=True) as saved,
  ):
    template = report.checkpoints.abstract(run.initial_state())
    step, state = saved.restore(template, step=saved.latest)
  assert step == 10
  student = state.params['student']
  exported = models.from_pretrained(tmp_path / 'student')
  found = logprobs(*exported)
  np.testing.assert_allclose(
    found, logprobs(run.student, student), rtol=1e-4, atol=1e-4
  )
  start = logprobs(run.student, run.student_params)
  assert np.abs(found - start).max() > 1e-4
