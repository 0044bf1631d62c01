"""Which layers of a teacher a student is made of."""

# Which layers of how deep a teacher make a student of 1, 2, ... layers.
_COPIED = {
  6: {1: (0,), 2: (0, 5), 3: (0, 2, 5), 4: (0, 1, 3, 5)},
  12: {
    1: (0,),
    2: (0, 6),
    3: (0, 6, 11),
    4: (0, 4, 8, 11),
    6: (0, 2, 4, 7, 9, 11),
    9: (0, 1, 2, 4, 5, 7, 9, 10, 11),
  },
  16: {
    1: (0,),
    2: (0, 15),
    3: (0, 8, 15),
    4: (0, 5, 10, 15),
    8: (0, 2, 4, 6, 8, 10, 12, 15),
  },
}


def copied_layers(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
  """Returns which teacher layers a student of so many is made of.

  Shleifer & Rush's table; where it has no line, evenly spaced layers, the first
  and the last among them.

  >>> copied_layers(12, 3)
  (0, 6, 11)
  >>> copied_layers(24, 4)
  (0, 8, 15, 23)

  Args:
    teacher_layers: how many there are.
    student_layers: how many to choose.

  Raises:
    ValueError: if that is none or more than there are.

  References:
    Shleifer & Rush, 2020, https://arxiv.org/abs/2010.13002; the numbers are
    those of their code.
  """
  if not 1 <= student_layers <= teacher_layers:
    raise ValueError(
      f'{student_layers} of {teacher_layers} layers cannot be copied; ask for '
      f'1 to {teacher_layers}, or list layers (one may appear twice).'
    )
  if student_layers in _COPIED.get(teacher_layers, {}):
    return _COPIED[teacher_layers][student_layers]
  if student_layers == 1:
    return (0,)
  last, gaps = teacher_layers - 1, student_layers - 1
  return tuple((2 * i * last + gaps) // (2 * gaps) for i in range(gaps + 1))
