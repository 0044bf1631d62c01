"""Optimizers and schedules, by name."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[Any], Any]

_SPEC_KEYS = {'kind', 'start', 'end', 'steps', 'begin'}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """What to build an optimizer from.

  Attributes:
    name: 'adafactor', 'adamw' or 'sgd'.
    learning_rate: the peak. Under Adafactor's `multiply_by_parameter_scale` it
      is relative to the root mean square of each parameter.
    schedule: what follows the warm-up: 'constant', 'linear' or 'cosine' (down
      to `final_fraction` at `total_steps`), or 'rsqrt' (falls as
      1 / sqrt(step)).
    warmup_steps: updates over which the rate climbs linearly from zero.
    total_steps: when 'linear' and 'cosine' end; the rate stays there after.
    final_fraction: the last rate, as a fraction of the peak.
    weight_decay: decoupled, multiplied by the rate of the step under every
      optimizer.
    no_decay: parameters whose path this pattern is found in never decay.
    b1: AdamW's decay of the first moment.
    b2: AdamW's decay of the second moment.
    eps: AdamW's denominator.
    momentum: of SGD; None for none.
    clip_norm: global norm that the gradients are clipped to, or None.
    decay_rate: Adafactor's exponent of the second moment's decay.
    factored: whether Adafactor factors the second moments of matrices.
    min_dim_size_to_factor: smaller matrices are never factored.
    multiply_by_parameter_scale: whether Adafactor's steps are relative.
    clipping_threshold: root mean square that Adafactor clips the update of each
      parameter to, or None.
    trainable: only parameters whose path this pattern is found in move, or None
      for all.
  """

  name: str = 'adamw'
  learning_rate: float = 1e-3
  schedule: str = 'constant'
  warmup_steps: int = 0
  total_steps: int | None = None
  final_fraction: float = 0.0
  weight_decay: float = 0.0
  no_decay: str = r'bias|norm|scale'
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  momentum: float | None = None
  clip_norm: float | None = 1.0
  decay_rate: float = 0.8
  factored: bool = True
  min_dim_size_to_factor: int = 128
  multiply_by_parameter_scale: bool = True
  clipping_threshold: float | None = 1.0
  trainable: str | None = None


def _linear(start, end, fraction):
  return start + (end - start) * fraction


def _cosine(start, end, fraction):
  return start + (end - start) * 0.5 * (1.0 - jnp.cos(jnp.pi * fraction))


def _exponential(start, end, fraction):
  return start * jnp.power(end / start, fraction)


_SHAPES = {'linear': _linear, 'cosine': _cosine, 'exponential': _exponential}


def schedule(spec: float | Mapping[str, Any]) -> Schedule:
  """Returns the function step -> value that `spec` describes.

  A number is itself at every step. A mapping `{kind, start, end, steps, begin}`
  holds `start` through step `begin` (default 0), reaches `end` at step
  `begin + steps` and stays there; `kind` is 'linear', 'cosine', 'exponential'
  (a straight line in the logarithm) or 'constant' (`start` alone). The step may
  be traced; a constant stays a Python float.

  >>> ramp = schedule(dict(kind='linear', start=0.0, end=1.0, steps=4))
  >>> [float(ramp(step)) for step in (0, 1, 4, 9)]
  [0.0, 0.25, 1.0, 1.0]

  Raises:
    ValueError: an unknown kind or key, a missing or an impossible value.
  """
  if isinstance(spec, (int, float)):
    return lambda step: float(spec)
  spec = _checked_spec(spec)
  start, shape = float(spec['start']), _SHAPES.get(spec['kind'])
  if shape is None:
    return lambda step: start
  end, steps, begin = float(spec['end']), spec['steps'], spec.get('begin', 0)
  return lambda step: shape(start, end, _fraction(step, begin, steps))


def is_constant(spec: float | Mapping[str, Any]) -> bool:
  """Returns whether `schedule(spec)` has the same value at every step."""
  return isinstance(spec, (int, float)) or spec['kind'] == 'constant'


def _fraction(step, begin, steps):
  return jnp.clip((jnp.asarray(step, jnp.float32) - begin) / steps, 0.0, 1.0)


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _checked_spec(spec) -> dict[str, Any]:
  if not hasattr(spec, 'keys'):
    raise ValueError(
      f'schedule {spec!r}: expected a number or a mapping with the keys '
      f'{sorted(_SPEC_KEYS)}'
    )
  spec = {key: spec[key] for key in spec}
  kinds = sorted([*_SHAPES, 'constant'])
  if spec.get('kind') not in kinds:
    raise ValueError(f'schedule {spec}: kind must be one of {kinds}')
  needed = {'start'} if spec['kind'] == 'constant' else _SPEC_KEYS - {'begin'}
  missing, unknown = needed - set(spec), set(spec) - _SPEC_KEYS
  if missing or unknown:
    raise ValueError(
      f'schedule {spec}: missing keys {sorted(missing)}, unknown keys '
      f'{sorted(unknown)}; allowed keys are {sorted(_SPEC_KEYS)}'
    )
  wrong = [k for k in spec if k != 'kind' and not _is_number(spec[k])]
  if wrong:
    raise ValueError(f'schedule {spec}: expected numbers in {sorted(wrong)}')
  if spec['kind'] != 'constant' and not spec['steps'] > 0:
    raise ValueError(f'schedule {spec}: steps must be positive')
  if spec['kind'] == 'exponential' and not spec['start'] * spec['end'] > 0:
    raise ValueError(
      f'schedule {spec}: exponential needs start and end that are not zero '
      "and have the same sign; use kind='linear' to reach zero"
    )
  return spec


def learning_rate(config: OptimizerConfig) -> Schedule:
  """Returns the function from the number of past updates to the rate.

  With peak r, warm-up w, total n and final fraction f, at step t:

    t < w:  r t / w
    constant: r        rsqrt: r sqrt(w' / max(t, w')), w' = max(w, 1)
    linear, cosine:  from r at t = w to f r at t = n

  Raises:
    ValueError: an unknown schedule, or a decay that ends before it begins.
  """
  allowed = ['constant', 'cosine', 'linear', 'rsqrt']
  if config.schedule not in allowed:
    raise ValueError(f'schedule={config.schedule!r}: must be one of {allowed}')
  peak, warmup = config.learning_rate, config.warmup_steps
  decays = config.schedule in ('linear', 'cosine')
  if decays and not (config.total_steps or 0) > warmup:
    raise ValueError(
      f'schedule={config.schedule!r} needs total_steps > warmup_steps, got '
      f'total_steps={config.total_steps}, warmup_steps={warmup}'
    )

  def value(step):
    step = jnp.asarray(step, jnp.float32)
    rate = peak
    if decays:
      fraction = _fraction(step, warmup, config.total_steps - warmup)
      shape = _SHAPES[config.schedule]
      rate = shape(peak, peak * config.final_fraction, fraction)
    elif config.schedule == 'rsqrt':
      floor = max(warmup, 1)
      rate = peak * jnp.sqrt(floor / jnp.maximum(step, floor))
    return rate * jnp.minimum(step / warmup, 1.0) if warmup else rate

  return value


def path_name(path: tuple[Any, ...]) -> str:
  """Returns a key path of `jax.tree_util` as 'student/decoder/bias'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def build(
  config: OptimizerConfig,
  auxiliary: Mapping[str, OptimizerConfig] | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Returns the optimizer of a tree of parameters.

  Frozen parameters get zero updates, no optimizer state, and no part in the
  norm that clips. `init` raises a ValueError where `trainable` is found in no
  path.

  Args:
    config: how parameters are trained.
    auxiliary: how those under these top-level names are trained instead. Each
      such group is clipped by a norm of its own.

  Raises:
    ValueError: an unknown name or schedule, or an impossible value.
  """
  configs = {'main': config, **(auxiliary or {})}
  transforms = {name: _transform(each) for name, each in configs.items()}
  transforms['frozen'] = optax.set_to_zero()

  def labels(params):
    tree = jax.tree_util.tree_map_with_path(
      lambda path, _: _label(path_name(path), configs), params
    )
    if 'main' not in jax.tree.leaves(tree):
      paths = jax.tree_util.tree_leaves_with_path(params)
      examples = [path_name(path) for path, _ in paths[:5]]
      raise ValueError(
        f'trainable={config.trainable!r} matches no parameter path. '
        f'Paths look like {examples}'
      )
    return tree

  return optax.partition(transforms, labels)


def moves(
  config: OptimizerConfig,
  auxiliary: Mapping[str, OptimizerConfig] | None = None,
) -> Callable[[str], bool]:
  """Returns whether `build` moves a parameter, by its path."""
  configs = {'main': config, **(auxiliary or {})}
  return lambda path: _label(path, configs) != 'frozen'


def split(params: Any, moving: Callable[[str], bool]) -> tuple[Any, Any]:
  """Returns the parameters that move and those that rest.

  Either has optax's `MaskedNode` where a parameter is the other's, so that
  gradients of the first are what the optimizer of all of them takes.
  """

  def keep(wanted):
    def leaf(path, x):
      return x if moving(path_name(path)) == wanted else optax.MaskedNode()

    return jax.tree_util.tree_map_with_path(leaf, params)

  return keep(True), keep(False)


def join(moving: Any, resting: Any) -> Any:
  """Undoes `split`."""

  def masked(x):
    return isinstance(x, optax.MaskedNode)

  return jax.tree.map(
    lambda x, y: y if masked(x) else x, moving, resting, is_leaf=masked
  )


def _label(path: str, configs: Mapping[str, OptimizerConfig]) -> str:
  root = path.split('/')[0]
  group = root if root in configs else 'main'
  pattern = configs[group].trainable
  return group if pattern is None or re.search(pattern, path) else 'frozen'


def _transform(config: OptimizerConfig) -> optax.GradientTransformation:
  allowed = {'adafactor': _adafactor, 'adamw': _adamw, 'sgd': _sgd}
  if config.name not in allowed:
    raise ValueError(
      f'optimizer name={config.name!r}: must be one of {sorted(allowed)}'
    )
  if config.clip_norm is not None and not config.clip_norm > 0:
    raise ValueError(
      f'clip_norm={config.clip_norm}: must be positive, or None for no clipping'
    )
  optimizer = allowed[config.name](config, learning_rate(config))
  clip = config.clip_norm or math.inf
  return optax.chain(optax.clip_by_global_norm(clip), optimizer)


def _decay_mask(config: OptimizerConfig):
  def decays(path, _):
    return re.search(config.no_decay, path_name(path)) is None

  return lambda params: jax.tree_util.tree_map_with_path(decays, params)


def _adafactor(config, rate) -> optax.GradientTransformation:
  def decay(step):
    # optax adds Adafactor's weight decay after the rate; the product makes
    # `weight_decay` mean what it means under AdamW.
    return config.weight_decay * rate(step)

  return optax.adafactor(
    rate,
    min_dim_size_to_factor=config.min_dim_size_to_factor,
    decay_rate=config.decay_rate,
    multiply_by_parameter_scale=config.multiply_by_parameter_scale,
    clipping_threshold=config.clipping_threshold,
    factored=config.factored,
    weight_decay_rate=decay if config.weight_decay else None,
    weight_decay_mask=_decay_mask(config),
  )


def _adamw(config, rate) -> optax.GradientTransformation:
  return optax.adamw(
    rate,
    b1=config.b1,
    b2=config.b2,
    eps=config.eps,
    weight_decay=config.weight_decay,
    mask=_decay_mask(config),
  )


def _sgd(config, rate) -> optax.GradientTransformation:
  return optax.chain(
    optax.trace(config.momentum) if config.momentum else optax.identity(),
    optax.add_decayed_weights(config.weight_decay, _decay_mask(config)),
    optax.scale_by_learning_rate(rate),
  )
