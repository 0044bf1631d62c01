"""What the tests of samplers share: a prompt, and what a model makes of it."""

import functools

import jax
import jax.numpy as jnp

from kdjax import types
from kdjax.models import api

KEY = jax.random.key(0)
ROWS = 8

logprobs = jax.jit(api.logprobs, static_argnums=0)


@functools.cache
def make_prompt(rows=ROWS):
  tokens = jax.random.randint(jax.random.key(5), (rows, 3), 0, 4)
  return types.Prompt(tokens, jnp.ones((rows, 3), bool))


@functools.partial(jax.jit, static_argnums=0)
def full_logits(model, params, prompt, tokens):
  return model.head(params, model.hidden_states(params, prompt, tokens))


@jax.jit
def chosen(scores, tokens):
  return jnp.take_along_axis(scores, tokens[..., None], -1)[..., 0]
