"""Tests of the loop's parts: rows that leave, and a cache that grows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, sampling, testing, types
from kdjax.models import mixtures
from kdjax.sampling import logits as logits_lib
from kdjax.sampling import loop

KEY = jax.random.key(0)
LENGTH = 18


def make_prompt(rows, width=3):
  tokens = jax.random.randint(jax.random.key(5), (rows, width), 2, 4)
  mask = jnp.arange(width)[None] <= jnp.arange(rows)[:, None] % width
  return types.Prompt(tokens, mask)


@pytest.fixture
def cut(monkeypatch):
  """Returns a function that sets the parts of the next call."""

  def set_parts(block, ends, sizes):
    parts = loop.Parts(block, ends, sizes)
    monkeypatch.setattr(loop, 'cut', lambda *_, **__: parts)

  return set_parts


@functools.cache
def setup(name):
  """Returns a model, its parameters and a function of rows to a prompt."""
  if name == 'tabular':
    return *testing.tabular(jax.random.key(1), vocab_size=6), make_prompt
  if name == 'mixture':
    a, params_a, prompt = setup('tabular')
    b, params_b, _ = setup('gpt2')
    model = models.mixture(a, b, 0.4)
    return model, (params_a, params_b), lambda rows: (prompt(rows),) * 2
  transformers = pytest.importorskip('transformers')
  if name == 't5':
    config = transformers.T5Config(
      vocab_size=12, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
  else:
    config = transformers.GPT2Config(
      vocab_size=12,
      n_positions=32,
      n_embd=8,
      n_layer=1,
      n_head=2,
      bos_token_id=1,
      eos_token_id=1,
    )
  return *models.from_config(config, jax.random.key(0)), make_prompt


def generate(name, rows, **settings):
  model, params, prompt = setup(name)
  settings = {'max_new_tokens': LENGTH, **settings}
  return sampling.generate(model, params, prompt(rows), KEY, **settings)


def assert_same_samples(a, b):
  np.testing.assert_array_equal(a.tokens, b.tokens)
  np.testing.assert_array_equal(a.mask, b.mask)
  for name in ('sampling_logprobs', 'policy_logprobs'):
    # Kernels round differently at another batch size and capacity.
    np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-5)


def by_hand(name, rows):
  """The slow twin: a Python loop, row by row and token by token."""
  model, params, prompt = setup(name)
  decode = jax.jit(model.decode)
  tokens = np.full((rows, LENGTH), model.pad_id)
  mask = np.zeros((rows, LENGTH), bool)
  for row in range(rows):
    alone = jax.tree.map(lambda x, row=row: x[row : row + 1], prompt(rows))
    logits, state = model.prefill(params, alone, LENGTH)
    for t in range(LENGTH):
      key = jax.random.fold_in(jax.random.fold_in(KEY, row), t)
      bits = jax.random.bits(key, (2,), jnp.uint32) >> 9
      uniforms = (bits.astype(jnp.float32) + 0.5) / 2**23
      token = int(logits_lib.sample(logits[0], uniforms)[0])
      tokens[row, t], mask[row, t] = token, True
      if token in model.eos_ids:
        break
      logits, state = decode(params, state, jnp.array([[token]]))
      logits = logits[:, 0]
  return types.Response(tokens, mask)


def test_generate_is_a_plain_loop_over_decode(cut):
  rows = 17
  cut(6, (7, 19), (rows, 8))
  found, expected = generate('tabular', rows), by_hand('tabular', rows)
  np.testing.assert_array_equal(found.tokens, expected.tokens)
  np.testing.assert_array_equal(found.mask, expected.mask)
  # Half of the rows have left after two blocks, but not all.
  assert 0 < found.mask[:, 12].sum() <= 8


@pytest.mark.parametrize(
  'name, block, ends, sizes',
  [
    ('tabular', 2, (7, 19), (7, 3, 1)),  # odd sizes, ends that don't divide T
    ('tabular', 5, (6, 16, 21), (7, 3)),  # runs past T
    ('tabular', 1, (4, 9, 11, 18), (7,)),
    pytest.param('t5', 2, (7, 19), (7, 3), marks=pytest.mark.slow),
    pytest.param('mixture', 4, (9, 21), (7, 3), marks=pytest.mark.slow),
  ],
)
def test_parts_change_no_sample(cut, name, block, ends, sizes):
  # Ends of several ids come early and late.
  settings = {'eos_id': (1, 2), 'temperature': 1.3, 'block': block}
  cut(block, ends[-1:], (7,))
  whole = generate(name, 7, **settings)
  cut(block, ends, sizes)
  assert_same_samples(generate(name, 7, **settings), whole)
  assert len(set(np.asarray(whole.mask).sum(1).tolist())) > 2


@pytest.mark.slow
@pytest.mark.parametrize('rows', [1, 2])
def test_few_rows(cut, rows):
  cut(3, (4, 10, 19), (rows,) if rows == 1 else (2, 1))
  found = generate('tabular', rows)
  assert_same_samples(
    found, jax.tree.map(lambda x: x[:rows], generate('tabular', 7))
  )


def test_samples_of_a_prompt_are_rows_of_their_own(cut):
  cut(2, (5, 19), (12, 6, 3))
  three = generate('tabular', 4, samples_per_prompt=3)
  cut(2, (19,), (4,))
  first = jax.tree.map(lambda x: x[::3], three)
  assert_same_samples(first, generate('tabular', 4))


@pytest.mark.slow
def test_all_rows_end_at_once(cut):
  cut(2, (7, 19), (7, 3, 1))
  response = generate('tabular', 7, eos_id=range(6), min_new_tokens=0)
  assert (response.mask.sum(1) == 1).all()
  response = generate('tabular', 7, eos_id=(1, 2, 3), min_new_tokens=LENGTH)
  assert response.mask.all()


@types.struct
class Bare:
  """The state of a user's own model: without `narrow`."""

  inner: testing.TabularState

  def take(self, rows):
    return Bare(self.inner.take(rows))


@dataclasses.dataclass(frozen=True)
class Recorded(testing.TabularModel):
  """Notes how many rows and slots each token is decoded with."""

  bare: bool = False
  seen = []

  def prefill(self, params, prompt, max_new_tokens):
    logits, state = super().prefill(params, prompt, max_new_tokens)
    return logits, Bare(state) if self.bare else state

  def decode(self, params, state, tokens):
    inner = state.inner if self.bare else state
    shape = inner.tokens.shape
    jax.debug.callback(
      lambda length: self.seen.append((int(length), *shape)),
      inner.length[0],
      ordered=True,
    )
    logits, inner = super().decode(params, inner, tokens)
    return logits, Bare(inner) if self.bare else inner


def record(rows=32, bare=False, **settings):
  """Returns position, rows and slots of every token, and the response."""
  model = Recorded(vocab_size=6, num_tokens=6, bare=bare)
  _, params, prompt = setup('tabular')
  Recorded.seen.clear()
  response = sampling.generate(
    model, params, prompt(rows), KEY, max_new_tokens=LENGTH, **settings
  )
  jax.effects_barrier()
  return np.array(Recorded.seen), response


def test_rows_that_are_done_leave(cut):
  cut(3, (19,), (32, 16))
  seen, response = record()
  living = np.asarray(response.mask).sum(0)
  whole = seen[:, 1] == 32
  # The first look, every 3 tokens, at which at most half of the rows go on.
  leave = next(t for t in range(1, LENGTH, 3) if living[t] <= 16)
  np.testing.assert_array_equal(whole, seen[:, 0] < leave - 1)
  assert (seen[~whole, 1] == 16).all()
  assert not whole.all()
  cut(3, (19,), (32,))
  seen, same = record()
  assert (seen[:, 1] == 32).all()
  assert_same_samples(same, response)


def test_early_tokens_are_decoded_with_few_slots(cut):
  cut(3, (4, 10, 19), (8,))
  seen, response = record(8, eos_id=())
  np.testing.assert_array_equal(seen[:, 0], np.arange(LENGTH))
  slots = np.repeat([3, 9, LENGTH - 1], [3, 6, 9])
  np.testing.assert_array_equal(seen[:, 2], slots)
  # The last block reads the last token, too, for nothing.
  assert (seen[:-1, 0] < seen[:-1, 2]).all()
  seen, same = record(8, eos_id=(), bare=True)
  assert (seen[:, 2] == LENGTH - 1).all()
  assert_same_samples(same, response)


def test_stops_when_all_rows_are_done(cut):
  cut(2, (7, 19), (32, 16, 8))
  seen, response = record()
  assert seen[:, 0].max() < int(response.mask.sum(1).max()) + 1


class Stop(Exception):
  pass


@pytest.mark.parametrize('devices, compact', [(1, True), (2, False)])
def test_rows_stay_on_their_devices(monkeypatch, devices, compact):
  seen = []

  def spy(length, rows, block, compact):
    seen.append((length, rows, compact))
    raise Stop

  monkeypatch.setattr(loop, 'cut', spy)
  mesh = jax.sharding.AbstractMesh((devices,), ('data',))
  monkeypatch.setattr(jax.sharding, 'get_abstract_mesh', lambda: mesh)
  with pytest.raises(Stop):
    generate('tabular', 17, samples_per_prompt=2)
  assert seen == [(LENGTH, 34, compact)]


@pytest.mark.parametrize('length', [1, 2, 23, 64, 255, 256, 1000, 1024, 4097])
@pytest.mark.parametrize('rows', [1, 15, 16, 33, 64])
@pytest.mark.parametrize('block', [1, 8, 10_000])
def test_parts_are_whole_blocks_that_reach_the_end(length, rows, block):
  parts = loop.cut(length, rows, block, compact=True)
  while parts.sizes:
    assert parts.ends == tuple(sorted(set(parts.ends)))
    assert all((end - 1) % parts.block == 0 for end in parts.ends)
    assert parts.ends[-1] >= length
    parts = parts.halved()


def test_parts_are_few():
  assert loop.cut(24, 64, 8, compact=True).sizes == (64,)
  assert loop.cut(32, 15, 8, compact=True).sizes == (15,)
  assert loop.cut(32, 33, 8, compact=True).sizes == (33, 16)
  assert loop.cut(64, 33, 8, compact=True).sizes == (33, 16, 8)
  assert loop.cut(64, 33, 8, compact=False).sizes == (33,)
  parts = loop.cut(1024, 32, 8, compact=True)
  counts = [len(p.ends) for p in (parts, parts.halved())]
  assert counts == [4, 2]
  assert len(loop.cut(256, 32, 8, compact=True).ends) == 2
  assert len(loop.cut(255, 32, 8, compact=True).ends) == 1


def test_a_mixture_narrows_if_both_models_do():
  model, params, prompt = setup('tabular')
  _, state = model.prefill(params, prompt(2), LENGTH)
  both = mixtures.MixtureState(state, state).narrow(5)
  assert both.a.tokens.shape == both.b.tokens.shape == (2, 5)
  assert not hasattr(mixtures.MixtureState(state, Bare(state)), 'narrow')
