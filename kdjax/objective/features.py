"""Matching intermediate layers: hidden states and attention maps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.objective.loss import Loss
from kdjax.objective.readings import Target, View
from kdjax.objective.specs import Option


def by_layer(captured: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
  """Returns what a model captured as one entry a layer, scanned or not."""

  def unstack(blocks):
    if isinstance(blocks, tuple):
      return blocks
    count = jax.tree.leaves(blocks)[0].shape[0]
    return tuple(
      jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(count)
    )

  return {stack: unstack(blocks) for stack, blocks in captured.items()}


def layers(captured: Any, stack: str, kind: str) -> list[jax.Array]:
  """Returns what was captured of each layer of a stack.

  Raises:
    ValueError: the model has no such stack, or no such kind of layer in it.
  """
  if stack not in captured:
    raise ValueError(
      f'stack={stack!r}: the model has only {sorted(captured)}; set '
      'loss_args.stack to one of these'
    )
  if any(kind not in block for block in captured[stack]):
    raise ValueError(
      f'the {stack} of the model has no {kind}: set loss_args.stack to another '
      'one, or drop that term'
    )
  return [block[kind] for block in captured[stack]]


def target(views: tuple[View, ...], *, stack: str, **unused: Any) -> Target:
  """The prompt's tokens count for the encoder, the response's otherwise."""
  (view,) = views
  encoder = stack == 'encoder'
  return Target(view.prompt.mask if encoder else view.response.mask)


def pairs(
  student: Sequence[Any],
  teacher: Sequence[Any],
  *,
  strategy: str,
  target_layer: int | None,
  seed: int,
  **unused: Any,
) -> tuple[tuple[int, Any], ...]:
  """Returns which student layer learns from which teacher layer.

  Raises:
    ValueError: the stacks differ in depth, and no strategy says what to do.
  """
  depths = len(student), len(teacher)
  if not strategy:
    if depths[0] != depths[1]:
      raise ValueError(
        f'the student has {depths[0]} layers and the teacher {depths[1]}: set '
        f'loss_args.strategy to one of {list(losses.STRATEGIES)}'
      )
    return tuple((i, i) for i in range(depths[0]))
  options = {} if target_layer is None else {'target_layer': int(target_layer)}
  return losses.select_layers(strategy, *depths, seed=int(seed), **options)


def _matched(distance: Callable[..., jax.Array], kind: str):
  """Sums a distance over the matched layers, [R, T] or [R, S]."""

  def values(readings, target, params, *, stack, **args):
    (reading,) = readings
    ours = layers(reading.layers, stack, kind)
    theirs = layers(reading.view.teacher_layers, stack, kind)
    total = jnp.zeros(target.mask.shape, jnp.float32)
    for i, j in pairs(ours, theirs, **args):
      # None: a weighted combination of all of the teacher's layers.
      other = jnp.stack(theirs) if j is None else theirs[j]
      own = params.get(f'layer_{i}', {}) if params else {}
      total += distance(ours[i], other, own, **args)
    return total

  return values


def _towards(student: jax.Array, teacher: jax.Array, params: Any) -> tuple:
  """Returns what a distance takes: student, teacher's target, projection."""
  projection = params.get('projection')
  if teacher.ndim > student.ndim:
    teacher = losses.combine_layers(student, teacher, projection)
  return student, teacher, projection


def _hidden(student, teacher, params, *, scale, mean, normalize, **unused):
  return losses.hidden_distance(
    *_towards(student, teacher, params),
    scale=scale,
    mean=mean,
    normalize=normalize,
  )


def _cosine(student, teacher, params, **unused):
  return losses.cosine_distance(*_towards(student, teacher, params))


def _adversarial(student, teacher, params, **unused):
  features = _towards(student, teacher, params)
  return sum(losses.adversarial(params['discriminator'], *features))


def _attention(student, teacher, params, *, distance, **unused):
  return losses.attention_distance(student, teacher, kind=distance)


def _auxiliary(kind: str, discriminates: bool = False) -> Callable[..., Any]:
  """Makes the parameters of each matched layer, from both models' shapes."""

  def auxiliary(key, student, teacher, *, stack, width=None, **args):
    ours, theirs = (layers(x, stack, kind) for x in (student, teacher))
    found = {}
    for i, j in pairs(ours, theirs, **args):
      narrow, wide = ours[i].shape[-1], theirs[j or 0].shape[-1]
      first, second = jax.random.split(jax.random.fold_in(key, i))
      made = {}
      if kind == 'hidden' and narrow != wide:
        made['projection'] = losses.init_projection(first, narrow, wide)
      if discriminates:
        made['discriminator'] = losses.init_discriminator(
          second, wide, int(width or wide)
        )
      if made:
        found[f'layer_{i}'] = made
    return found

  return auxiliary


_LAYERS = {
  'stack': Option('decoder', choices=('encoder', 'decoder')),
  'strategy': Option('', choices=('', *losses.STRATEGIES)),
  'target_layer': Option(None, low=0, fixed=True),
  'seed': Option(0, low=0, fixed=True),
}
_DISTANCE = {'distance': Option('mse', choices=('mse', 'kl'))}


def _problems(args: Mapping[str, Any]) -> list[str]:
  if args['strategy'] == 'weighted' and 'distance' in args:
    return [
      "loss_args.strategy='weighted' combines hidden states, not attention "
      "maps: choose another strategy, such as 'forward'"
    ]
  if args['target_layer'] is not None and args['strategy'] != 'all_to_one':
    return ["loss_args.target_layer belongs to strategy='all_to_one'"]
  return []


def _loss(
  distance: Callable[..., jax.Array],
  kind: str,
  args: Mapping[str, Option],
  discriminates: bool = False,
) -> Loss:
  return Loss(
    _matched(distance, kind),
    {**_LAYERS, **args},
    needs={'teacher', kind},
    target=target,
    auxiliary=_auxiliary(kind, discriminates),
    problems=_problems,
  )


LOSSES: dict[str, Loss] = {
  'hidden_distance': _loss(
    _hidden,
    'hidden',
    {
      'scale': Option(1.0),
      'mean': Option(False),
      'normalize': Option(False),
    },
  ),
  'cosine_distance': _loss(_cosine, 'hidden', {}),
  'adversarial': _loss(
    _adversarial,
    'hidden',
    {'width': Option(None, low=1, fixed=True)},
    discriminates=True,
  ),
  'attention_distance': _loss(_attention, 'attention', _DISTANCE),
  'cross_attention_distance': _loss(_attention, 'cross_attention', _DISTANCE),
}
