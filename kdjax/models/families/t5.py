"""T5 v1.0, v1.1, LM-adapted, Flan and T0."""

from collections.abc import Mapping
from typing import Any

from kdjax.models import encoder_decoder
from kdjax.models.hf import Entry


def _attention(ours: str, theirs: str) -> tuple[Entry, ...]:
  return tuple(
    Entry(f'{ours}/{x}/kernel', f'{theirs}.{x}.weight', transpose=True)
    for x in 'qkvo'
  )


def _mlp(ours: str, theirs: str) -> tuple[Entry, ...]:
  dense = f'{theirs}.DenseReluDense'
  return (
    *(
      Entry(f'{ours}/mlp/{x}/kernel', f'{dense}.{x}.weight', transpose=True)
      for x in ('wi', 'wi_0', 'wi_1', 'wo')
    ),
    Entry(f'{ours}/mlp_norm/scale', f'{theirs}.layer_norm.weight'),
  )


_E, _e = 'encoder/layers_*', 'encoder.block.*.layer'
_D, _d = 'decoder/layers_*', 'decoder.block.*.layer'
_BIAS = 'block.0.layer.0.SelfAttention.relative_attention_bias.weight'

TABLE = (
  Entry('shared/embedding', 'shared.weight'),
  Entry('lm_head', 'lm_head.weight', transpose=True),
  Entry('encoder_bias/embedding', f'encoder.{_BIAS}'),
  Entry('decoder_bias/embedding', f'decoder.{_BIAS}'),
  Entry('encoder_norm/scale', 'encoder.final_layer_norm.weight'),
  Entry('decoder_norm/scale', 'decoder.final_layer_norm.weight'),
  *_attention(f'{_E}/attention', f'{_e}.0.SelfAttention'),
  Entry(f'{_E}/attention_norm/scale', f'{_e}.0.layer_norm.weight'),
  *_mlp(_E, f'{_e}.1'),
  *_attention(f'{_D}/attention', f'{_d}.0.SelfAttention'),
  Entry(f'{_D}/attention_norm/scale', f'{_d}.0.layer_norm.weight'),
  *_attention(f'{_D}/cross_attention', f'{_d}.1.EncDecAttention'),
  Entry(f'{_D}/cross_attention_norm/scale', f'{_d}.1.layer_norm.weight'),
  *_mlp(_D, f'{_d}.2'),
)

# Copies of the shared table, and a tensor that old checkpoints never used.
IGNORED = (
  r'lm_head\.weight',
  r'(encoder|decoder)\.embed_tokens\.weight',
  r'decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias.*',
)

PREFIX = ''
ARCHITECTURE = 'T5ForConditionalGeneration'
MODEL = encoder_decoder.EncoderDecoder
DEFAULTS = {'eos_token_id': 1, 'pad_token_id': 0, 'is_encoder_decoder': True}


def config(hf: Mapping[str, Any]) -> encoder_decoder.Config:
  """Reads a Hugging Face T5 config.

  Later versions of transformers write `scale_decoder_outputs` and always tie
  the head; earlier ones write `tie_word_embeddings`, false in v1.1 and Flan,
  whose head is untied and unscaled.
  """
  kind = hf.get('feed_forward_proj', 'relu')
  gated = kind.startswith('gated-')
  act = 'gelu_new' if kind == 'gated-gelu' else kind.removeprefix('gated-')
  start = hf.get('decoder_start_token_id')
  scaled = hf.get('scale_decoder_outputs')
  if scaled is None:
    scaled = hf.get('tie_word_embeddings', True)
  return encoder_decoder.Config(
    vocab_size=hf['vocab_size'],
    width=hf['d_model'],
    head_size=hf['d_kv'],
    heads=hf['num_heads'],
    mlp_width=hf['d_ff'],
    encoder_layers=hf['num_layers'],
    decoder_layers=hf.get('num_decoder_layers') or hf['num_layers'],
    activation=act,
    gated_mlp=gated,
    tied_head=scaled,
    scaled_head=scaled,
    relative_buckets=hf.get('relative_attention_num_buckets', 32),
    relative_max_distance=hf.get('relative_attention_max_distance', 128),
    norm_eps=hf.get('layer_norm_epsilon', 1e-6),
    dropout=hf.get('dropout_rate', 0.1),
    start_id=hf['pad_token_id'] if start is None else start,
  )
