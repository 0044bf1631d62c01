"""Layer matching, against the tables of the released code."""

import pytest

from kdjax.losses import layer_selection

select = layer_selection.select_layers

# Of the code of Yu et al. (2025): teacher and student layers, targets.
TABLES = [
  (12, 3, [3, 7, 11]),
  (12, 4, [2, 5, 8, 11]),
  (12, 6, [1, 3, 5, 7, 9, 11]),
  (12, 9, [1, 2, 3, 5, 6, 7, 9, 10, 11]),
  (6, 2, [2, 5]),
  (6, 3, [1, 3, 5]),
]
ONE_TO_ONE = ('copied', 'forward', 'reverse', 'random')


def targets(*args, **options):
  pairs = select(*args, **options)
  assert [i for i, _ in pairs] == list(range(args[1]))
  return [j for _, j in pairs]


@pytest.mark.parametrize('teacher, student, expected', TABLES)
def test_forward_and_reverse_are_those_of_the_released_tables(
  teacher, student, expected
):
  assert targets('forward', student, teacher) == expected
  assert targets('reverse', student, teacher) == expected[::-1]


def test_forward_rises_to_the_last_layer_at_every_depth():
  for teacher in range(1, 40):
    assert targets('forward', teacher, teacher) == list(range(teacher))
    for student in range(1, teacher + 1):
      found = targets('forward', student, teacher)
      gaps = [b - a for a, b in zip([-1, *found], found)]
      assert found[-1] == teacher - 1
      # Evenly: no two gaps differ by more than one layer.
      assert min(gaps) >= 1 and max(gaps) - min(gaps) <= 1


def test_all_to_one_is_the_middle_layer_or_the_one_asked_for():
  assert targets('all_to_one', 3, 12) == [6] * 3  # the released code's
  assert targets('all_to_one', 3, 12, target_layer=0) == [0] * 3
  assert targets('all_to_one', 5, 1) == [0] * 5


def test_random_is_one_fixed_assignment_a_seed():
  assert targets('random', 3, 12, seed=4) == targets('random', 3, 12, seed=4)
  found = [targets('random', 3, 12, seed=seed) for seed in range(200)]
  assert all(len({*one}) == 3 for one in found)
  assert {j for one in found for j in one} == set(range(12))
  assert any(one != sorted(one) for one in found)
  assert sorted(targets('random', 12, 12)) == list(range(12))


def test_last_weighted_and_none():
  assert select('last', 3, 12) == ((2, 11),)
  assert targets('weighted', 3, 12) == [None] * 3
  assert select('none', 3, 12) == ()


def test_deep_students_need_a_strategy_that_can_serve_them():
  for strategy in ONE_TO_ONE:
    with pytest.raises(ValueError, match="4 student.*has 3.*'all_to_one'"):
      select(strategy, 4, 3)
  for strategy in set(layer_selection.STRATEGIES) - {*ONE_TO_ONE}:
    select(strategy, 4, 3)


def test_bad_settings_are_named():
  with pytest.raises(ValueError, match="'foward'.*'forward'"):
    select('foward', 3, 12)
  with pytest.raises(ValueError, match='target_layer is 12.*0 to 11'):
    select('all_to_one', 3, 12, target_layer=12)
  with pytest.raises(ValueError, match="target_layer=3 .*'last'"):
    select('last', 3, 12, target_layer=3)
  with pytest.raises(ValueError, match='0 student and 12'):
    select('forward', 0, 12)
