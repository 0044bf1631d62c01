"""The pairs of models that benchmarks run, and the prompts they answer.

`save` has transformers make both models once, with random weights, so that
kdjax and its peers load the same files and answer the same prompts.
"""

import argparse
import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

PAD, EOS, UNKNOWN = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Tower:
  """A model's size.

  Attributes:
    layers: in T5, of the encoder and of the decoder each.
    width: D.
    heads: N; D / N is the size of each.
    mlp: width inside the MLP.
    kv_heads: K, in Llama; default N.
  """

  layers: int
  width: int
  heads: int
  mlp: int
  kv_heads: int = 0


@dataclasses.dataclass(frozen=True)
class Shape:
  """A teacher, a student, and the batches that they see."""

  family: str
  vocabulary: int
  student: Tower
  teacher: Tower
  batch: int = 8
  prompt: int = 64
  response: int = 64

  @property
  def tied(self) -> bool:
    """Whether the output head is the embedding table."""
    return self.family != 'llama'


_STUDENT, _TEACHER = Tower(4, 256, 4, 1024), Tower(8, 512, 8, 2048)
_TINY = {'student': Tower(1, 16, 2, 32), 'teacher': Tower(2, 32, 2, 64)}
_TINY |= {'vocabulary': 61, 'batch': 2, 'prompt': 5, 'response': 4}

SHAPES = {
  # Gated MLPs of the usual 8/3 D: 7.4 M and 33.7 M parameters.
  'llama': Shape('llama', 8192, Tower(4, 256, 4, 704), Tower(8, 512, 8, 1376)),
  'gpt2': Shape('gpt2', 50257, _STUDENT, _TEACHER),
  't5': Shape('t5', 8192, _STUDENT, _TEACHER),
  # For an accelerator: 0.13 B and 1.0 B parameters.
  'large': Shape(
    'llama',
    32000,
    Tower(12, 768, 12, 2048),
    Tower(16, 2048, 32, 8192, kv_heads=8),
    batch=32,
    prompt=256,
    response=256,
  ),
  **{f'tiny-{name}': Shape(name, **_TINY) for name in ('llama', 'gpt2', 't5')},
}


def from_flags(args: argparse.Namespace) -> Shape:
  """Returns the shape that flags name, with their sizes in place of its own.

  Raises:
    ValueError: no such shape.
  """
  if args.shape not in SHAPES:
    raise ValueError(f'--shape={args.shape}: known are {sorted(SHAPES)}')
  names = ('batch', 'prompt', 'response', 'vocabulary')
  given = {name: getattr(args, name) for name in names}
  given = {name: value for name, value in given.items() if value is not None}
  return dataclasses.replace(SHAPES[args.shape], **given)


def hf_config(shape: Shape, tower: Tower) -> dict[str, Any]:
  """Returns a Hugging Face config, without dropout."""
  c = {
    'model_type': shape.family,
    'vocab_size': shape.vocabulary,
    'pad_token_id': PAD,
    'eos_token_id': EOS,
  }
  positions = max(1024, shape.prompt + shape.response)
  if shape.family == 't5':
    return c | {
      'd_model': tower.width,
      'd_kv': tower.width // tower.heads,
      'd_ff': tower.mlp,
      'num_heads': tower.heads,
      'num_layers': tower.layers,
      'num_decoder_layers': tower.layers,
      'feed_forward_proj': 'relu',
      'dropout_rate': 0.0,
      'decoder_start_token_id': PAD,
    }
  c['bos_token_id'] = EOS
  if shape.family == 'gpt2':
    names = ('embd_pdrop', 'attn_pdrop', 'resid_pdrop', 'summary_first_dropout')
    return c | {
      'n_embd': tower.width,
      'n_layer': tower.layers,
      'n_head': tower.heads,
      'n_inner': tower.mlp,
      'n_positions': positions,
      **dict.fromkeys(names, 0.0),
    }
  return c | {
    'hidden_size': tower.width,
    'num_hidden_layers': tower.layers,
    'num_attention_heads': tower.heads,
    'num_key_value_heads': tower.kv_heads or tower.heads,
    'intermediate_size': tower.mlp,
    'max_position_embeddings': positions,
    'tie_word_embeddings': False,
  }


def prompts(shape: Shape, rows: int) -> np.ndarray:
  """Returns random prompts [rows, S] int32, without special ids."""
  return _words(shape, rows, shape.prompt, seed=0)


def responses(shape: Shape, rows: int) -> np.ndarray:
  """Returns random responses [rows, T] int32, without special ids."""
  return _words(shape, rows, shape.response, seed=1)


def _words(shape: Shape, rows: int, length: int, seed: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  size = (rows, length)
  return rng.integers(UNKNOWN + 1, shape.vocabulary, size).astype(np.int32)


def text(tokens: np.ndarray) -> str:
  """Returns what the shapes' tokenizer turns into these ids, one a word.

  >>> text(np.array([5, 17]))
  'w5 w17'
  """
  return ' '.join(f'w{token}' for token in tokens.tolist())


def save(shape: Shape, folder: str | os.PathLike, batches: int = 64) -> None:
  """Writes student/, teacher/, each with a tokenizer, and prompts.jsonl."""
  folder = pathlib.Path(folder)
  for seed, role in enumerate(('student', 'teacher')):
    save_model(shape, getattr(shape, role), folder / role, seed)
    save_tokenizer(shape, folder / role)
  lines = [
    json.dumps({'prompt': text(row)}) + '\n'
    for row in prompts(shape, batches * shape.batch)
  ]
  (folder / 'prompts.jsonl').write_text(''.join(lines))


def save_model(
  shape: Shape, tower: Tower, directory: pathlib.Path, seed: int
) -> None:
  """Has transformers initialise a model and write it."""
  import torch
  import transformers

  config = hf_config(shape, tower)
  config = transformers.AutoConfig.for_model(config.pop('model_type'), **config)
  torch.manual_seed(seed)
  model = auto_class(shape).from_config(config, dtype=torch.float32)
  model.save_pretrained(directory)


def auto_class(shape: Shape) -> Any:
  """Returns the class of transformers that loads a shape's models."""
  import transformers

  if shape.family == 't5':
    return transformers.AutoModelForSeq2SeqLM
  return transformers.AutoModelForCausalLM


def save_tokenizer(shape: Shape, directory: pathlib.Path) -> None:
  """Writes a tokenizer of whole words: `w5` is id 5."""
  import tokenizers
  import transformers

  special = {'<pad>': PAD, '</s>': EOS, '<unk>': UNKNOWN}
  words = {f'w{i}': i for i in range(UNKNOWN + 1, shape.vocabulary)}
  model = tokenizers.models.WordLevel({**special, **words}, unk_token='<unk>')
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    pad_token='<pad>',
    eos_token='</s>',
    unk_token='<unk>',
    padding_side='left',
  ).save_pretrained(directory)


def plain(shape: Shape) -> dict[str, Any]:
  """Returns a shape as JSON can hold it."""
  return dataclasses.asdict(shape)


def restore(fields: dict[str, Any]) -> Shape:
  """Undoes `plain`."""
  towers = {role: Tower(**fields[role]) for role in ('student', 'teacher')}
  return Shape(**{**fields, **towers})
