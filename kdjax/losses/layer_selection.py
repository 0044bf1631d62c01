"""Which teacher layer each student layer learns from. Layers count from 0."""

import random
from collections.abc import Callable

from kdjax.copied_layers import copied_layers


def select_layers(
  strategy: str,
  student_layers: int,
  teacher_layers: int,
  *,
  target_layer: int | None = None,
  seed: int = 0,
) -> tuple[tuple[int, int | None], ...]:
  """Pairs student layers i with teacher layers j, for intermediate losses.

  With L_s and L_t layers, the strategies are

  - 'forward': evenly, the last with the last: j = ceil((i + 1) L_t / L_s) - 1;
  - 'copied': the layers that a student of so many is made of, the first and the
    last among them (`copied_layers`);
  - 'reverse': the same teacher layers, the last first;
  - 'all_to_one': j = `target_layer` for every i;
  - 'random': L_s different teacher layers in an order of chance, the same for
    the same seed;
  - 'last': only the last with the last;
  - 'weighted': all teacher layers for every i, which the pair (i, None) stands
    for: combine them with `combine_layers`;
  - 'none': no pairs.

  Layers don't count the embeddings. (Pre-distillation's code matches
  `hidden_states[i]`, where 0 is the embeddings: its student's last layer learns
  from none.)

  >>> select_layers('forward', 3, 12)
  ((0, 3), (1, 7), (2, 11))
  >>> select_layers('weighted', 2, 12)
  ((0, None), (1, None))

  Args:
    strategy: one of the above.
    student_layers: L_s.
    teacher_layers: L_t.
    target_layer: the teacher layer of 'all_to_one'; default L_t // 2.
    seed: of 'random'.

  Returns:
    pairs (student layer, teacher layer), in order of the student's.

  Raises:
    ValueError: for an unknown strategy, a target that isn't a layer or isn't
      used, or a student with too many layers for the strategy.

  References:
    Yu et al., 2025, "Revisiting intermediate-layer matching in knowledge
    distillation" (the strategies and their comparison); Passban et al., 2021
    (ALP-KD), https://arxiv.org/abs/2012.14022 (weighted).
  """
  if strategy not in STRATEGIES:
    raise ValueError(
      f'strategy is {strategy!r}; it must be one of {sorted(STRATEGIES)}.'
    )
  if student_layers < 1 or teacher_layers < 1:
    raise ValueError(
      f'{student_layers} student and {teacher_layers} teacher layers: both '
      'must be 1 or more.'
    )
  if strategy in ('forward', 'copied', 'reverse', 'random'):
    _check_depth(strategy, student_layers, teacher_layers)
  if strategy == 'all_to_one':
    target_layer = _checked_target(target_layer, teacher_layers)
  elif target_layer is not None:
    raise ValueError(
      f'target_layer={target_layer} has no meaning with strategy {strategy!r}: '
      "leave it out, or set strategy='all_to_one'."
    )
  return STRATEGIES[strategy](
    student_layers, teacher_layers, target_layer, seed
  )


def _forward(student_layers, teacher_layers, target, seed):
  return tuple(enumerate(_even(student_layers, teacher_layers)))


def _copied(student_layers, teacher_layers, target, seed):
  return tuple(enumerate(copied_layers(teacher_layers, student_layers)))


def _reverse(student_layers, teacher_layers, target, seed):
  return tuple(enumerate(_even(student_layers, teacher_layers)[::-1]))


def _all_to_one(student_layers, teacher_layers, target, seed):
  return tuple((i, target) for i in range(student_layers))


def _random(student_layers, teacher_layers, target, seed):
  chosen = random.Random(seed).sample(range(teacher_layers), student_layers)
  return tuple(enumerate(chosen))


def _last(student_layers, teacher_layers, target, seed):
  return ((student_layers - 1, teacher_layers - 1),)


def _weighted(student_layers, teacher_layers, target, seed):
  return tuple((i, None) for i in range(student_layers))


def _none(student_layers, teacher_layers, target, seed):
  return ()


STRATEGIES: dict[str, Callable[..., tuple[tuple[int, int | None], ...]]] = {
  'forward': _forward,
  'copied': _copied,
  'reverse': _reverse,
  'all_to_one': _all_to_one,
  'random': _random,
  'last': _last,
  'weighted': _weighted,
  'none': _none,
}


def _even(student_layers: int, teacher_layers: int) -> list[int]:
  """ceil((i + 1) L_t / L_s) - 1, in integers."""
  return [
    ((i + 1) * teacher_layers - 1) // student_layers
    for i in range(student_layers)
  ]


def _check_depth(strategy, student_layers, teacher_layers):
  if student_layers > teacher_layers:
    raise ValueError(
      f'strategy {strategy!r} gives each of the {student_layers} student '
      f'layers a teacher layer of its own, but the teacher has '
      f"{teacher_layers}. Set strategy to 'all_to_one', 'weighted' or 'last'."
    )


def _checked_target(target, teacher_layers):
  if target is None:
    return teacher_layers // 2
  if not 0 <= target < teacher_layers:
    raise ValueError(
      f'target_layer is {target}; it must be a teacher layer, from 0 to '
      f'{teacher_layers - 1}.'
    )
  return target
