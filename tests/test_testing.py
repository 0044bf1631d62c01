import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import testing, types

TOKENS = jax.random.randint(jax.random.key(3), (3, 5), 0, 4)


def setup():
  model, params = testing.tabular(jax.random.key(0))
  tokens = jax.random.randint(jax.random.key(1), (3, 4), 0, 4)
  mask = jnp.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
  return model, params, types.Prompt(tokens, mask)


def forced(model, params, prompt, tokens=TOKENS):
  return model.head(params, model.hidden_states(params, prompt, tokens))


def decode_all(model, params, state, tokens, sizes):
  out = []
  for size in sizes:
    logits, state = model.decode(params, state, tokens[:, :size])
    out.append(logits)
    tokens = tokens[:, size:]
  return jnp.concatenate(out, 1), state


@pytest.mark.parametrize('sizes', [(1, 1, 1, 1), (4,), (1, 3)])
def test_decoding_equals_teacher_forcing(sizes):
  model, params, prompt = setup()
  first, state = model.prefill(params, prompt, 5)
  rest, _ = decode_all(model, params, state, TOKENS, sizes)
  np.testing.assert_allclose(
    jnp.concatenate([first[:, None], rest], 1),
    forced(model, params, prompt),
    atol=1e-6,
  )


def test_take_and_rewind():
  model, params, prompt = setup()
  _, state = model.prefill(params, prompt, 5)
  _, state = decode_all(model, params, state, TOKENS, (3,))
  rows = jnp.array([2, 0, 0])
  lengths = jnp.array([2, 1, 3])
  state = state.take(rows).rewind(lengths)
  tokens = jnp.array([[3], [2], [1]])
  logits, _ = model.decode(params, state, tokens)
  full = TOKENS[rows].at[jnp.arange(3), lengths].set(tokens[:, 0])
  moved = jax.tree.map(lambda x: x[rows], prompt)
  expected = forced(model, params, moved, full)[jnp.arange(3), lengths + 1]
  np.testing.assert_allclose(logits[:, 0], expected, atol=1e-6)


def test_padding_does_not_matter_but_order_does():
  model, params, prompt = setup()
  right = types.Prompt(jnp.array([[1, 2, 0]]), jnp.array([[1, 1, 0]], bool))
  left = types.Prompt(jnp.array([[3, 1, 2]]), jnp.array([[0, 1, 1]], bool))
  swapped = dataclasses.replace(right, tokens=jnp.array([[2, 1, 0]]))
  logits = [
    forced(model, params, p, TOKENS[:1]) for p in (left, right, swapped)
  ]
  np.testing.assert_array_equal(logits[0], logits[1])
  assert not np.allclose(logits[1], logits[2])


def test_checks_can_fail():
  x = jnp.linspace(0.1, 1.0, 6).reshape(3, 2)
  testing.assert_transforms_agree(jnp.sin, x)
  with pytest.raises(AssertionError, match='vmap differs'):
    testing.assert_transforms_agree(lambda x: x / x.sum(), x)
  testing.assert_gradient(
    lambda x: jnp.sum(jnp.sin(x)), x, key=jax.random.key(0)
  )
  with pytest.raises(AssertionError):
    testing.assert_gradient(
      lambda x: jnp.sum(x * jax.lax.stop_gradient(x)), x, key=jax.random.key(0)
    )


def test_prompts_may_be_of_wide_integers():
  model, params, prompt = setup()
  first, _ = model.prefill(params, prompt, 5)
  with jax.enable_x64(True):
    wide = dataclasses.replace(prompt, tokens=prompt.tokens.astype('int64'))
    assert wide.tokens.dtype == jnp.int64
    found, state = model.prefill(params, wide, 5)
    model.decode(params, state, TOKENS.astype('int64'))
  np.testing.assert_array_equal(found, first)
