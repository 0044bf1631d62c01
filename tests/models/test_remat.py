"""What a recomputed layer keeps: the same gradients in other memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, types
from tests.models.test_storage import CONFIGS

PROMPT = types.Prompt(jnp.ones((2, 6), jnp.int32), jnp.ones((2, 6), bool))
RESPONSE = jnp.arange(14).reshape(2, 7) + 2


@pytest.mark.parametrize(
  'family', ['gpt2', pytest.param('t5', marks=pytest.mark.slow)]
)
def test_policies_change_what_is_kept_and_no_gradient(family):
  model, params = models.from_config(CONFIGS[family], jax.random.key(0))
  kept, gradients = {}, {}
  for name in ('all', 'nothing', 'dots_no_batch', 'dots'):
    options = {'remat': name != 'all'}
    options['remat_policy'] = 'nothing' if name == 'all' else name
    config = dataclasses.replace(model.config, **options)
    run = dataclasses.replace(model, config=config)

    def loss(params, run=run):
      return jnp.sum(jnp.sin(run.hidden_states(params, PROMPT, RESPONSE)))

    gradients[name] = jax.jit(jax.grad(loss))(params)
    pull = jax.eval_shape(lambda p, f=loss: jax.vjp(f, p)[1], params)
    kept[name] = sum(x.size for x in jax.tree.leaves(pull))
  for found in gradients.values():
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
      found,
      gradients['all'],
    )
  assert kept['nothing'] < kept['dots_no_batch'] < kept['dots'] < kept['all']


def test_unknown_policies_are_refused():
  with pytest.raises(ValueError, match="remat_policy='offload'.*'dots'"):
    models.from_config(CONFIGS['t5'], jax.random.key(0), remat_policy='offload')
