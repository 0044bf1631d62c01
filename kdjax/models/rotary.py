"""Rotary position embeddings (Su et al. 2021) and how they are stretched."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def angles(
  positions: jax.Array, frequencies: tuple[float, ...], scale: float
) -> tuple[jax.Array, jax.Array]:
  """Returns scaled cosines and sines [B, 1, T, H / 2] of positions [B, T]."""
  turn = positions[..., None].astype(jnp.float32) * jnp.asarray(frequencies)
  return scale * jnp.cos(turn)[:, None], scale * jnp.sin(turn)[:, None]


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotates the pairs (i, i + H / 2) of x [B, N, T, H]; in float32 inside."""
  left, right = jnp.split(x.astype(jnp.float32), 2, -1)
  turned = left * cos - right * sin, right * cos + left * sin
  return jnp.concatenate(turned, -1).astype(x.dtype)


def from_hf(
  hf: Mapping[str, Any], size: int
) -> tuple[tuple[float, ...], float]:
  """Reads the rotary part of a Hugging Face config, of any version.

  Args:
    hf: the config, with `rope_parameters`, or `rope_theta` and `rope_scaling`.
    size: H, the size of a head.

  Returns:
    the H / 2 frequencies, in radians a position, and the scale of cosines and
    sines.

  Raises:
    ValueError: for an odd head size or a scaling that isn't implemented.
  """
  if size % 2:
    raise ValueError(
      f'head size {size} is odd; rotary embeddings turn pairs of features, '
      'so hidden_size / num_attention_heads (or head_dim) must be even.'
    )
  settings = {
    'rope_theta': hf.get('rope_theta', 10_000.0),
    'partial_rotary_factor': hf.get('partial_rotary_factor'),
    'longest': hf.get('max_position_embeddings'),
    **(hf.get('rope_scaling') or {}),
    **(hf.get('rope_parameters') or {}),
  }
  if (settings['partial_rotary_factor'] or 1.0) != 1.0:
    raise ValueError(
      f'partial_rotary_factor {settings["partial_rotary_factor"]} is not '
      'implemented; kdjax turns whole heads (1.0).'
    )
  kind = settings.get('rope_type', settings.get('type', 'default'))
  nested = any(isinstance(v, Mapping) for v in settings.values())
  if kind not in _SCALINGS or nested:
    raise ValueError(
      f'rope_type {"of each layer type" if nested else repr(kind)} is not '
      f'implemented; implemented are {sorted(_SCALINGS)}. (What "dynamic" '
      'and "longrope" compute depends on how long the whole sequence is, so '
      "that a token's states would change as others follow.)"
    )
  plain = float(settings['rope_theta']) ** (-np.arange(0, size, 2) / size)
  frequencies, scale = _SCALINGS[kind](plain, settings)
  return tuple(frequencies.astype(np.float32).tolist()), scale


def _default(plain: np.ndarray, settings: Mapping[str, Any]):
  del settings
  return plain, 1.0


def _linear(plain: np.ndarray, settings: Mapping[str, Any]):
  """Positions divided by a factor (Chen et al. 2023)."""
  return plain / settings['factor'], 1.0


def _llama3(plain: np.ndarray, settings: Mapping[str, Any]):
  """Long waves stretched, short ones kept, a ramp between (Llama 3.1)."""
  low, high = settings['low_freq_factor'], settings['high_freq_factor']
  turns = _original_length(settings) * plain / (2 * math.pi)
  kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
  return plain * (kept + (1 - kept) / settings['factor']), 1.0


def _yarn(plain: np.ndarray, settings: Mapping[str, Any]):
  """YaRN (Peng et al. 2023): a ramp over dimensions, and sharper attention."""
  length = _original_length(settings)
  factor = settings.get('factor') or settings['longest'] / length
  theta, size = settings['rope_theta'], 2 * plain.size

  def dimension(turns):  # the one that turns so often within `length`
    wave = math.log(length / (turns * 2 * math.pi))
    return size * wave / (2 * math.log(theta))

  low = dimension(settings.get('beta_fast') or 32)
  high = dimension(settings.get('beta_slow') or 1)
  if settings.get('truncate', True):
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, size - 1)
  # As in transformers: 0.001 keeps the ramp's width above zero.
  width = high - low or 0.001
  stretched = np.clip((np.arange(plain.size) - low) / width, 0.0, 1.0)
  scale = settings.get('attention_factor')
  if scale is None:
    # mscale and mscale_all_dim are DeepSeek's; 1 and 0 give the paper's.
    over = settings.get('mscale'), settings.get('mscale_all_dim')
    numerator, denominator = over if all(over) else (1.0, 0.0)
    log = 0.1 * math.log(max(factor, 1.0))
    scale = (numerator * log + 1.0) / (denominator * log + 1.0)
  return plain * (1 - stretched + stretched / factor), float(scale)


def _original_length(settings: Mapping[str, Any]) -> int:
  return settings.get('original_max_position_embeddings') or settings['longest']


_SCALINGS = {
  'default': _default,
  'linear': _linear,
  'llama3': _llama3,
  'yarn': _yarn,
}
