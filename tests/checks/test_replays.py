"""How many earlier samples are kept, and for whom."""

import pytest

from kdjax import checks

REPLAYED = {'name': 'distillm', 'student': 0.5, 'replay': 0.25}


def test_replays_need_room(problems, tiny):
  for size in (0, 7):
    found = problems(tiny(recipe=REPLAYED, replay_size=size))
    assert f"replay_size={size}: recipe 'distillm' replays what" in found
    assert 'batch_size=8 rows: keep as many or more' in found
  checks.validate(tiny(recipe=REPLAYED, replay_size=8))
  # Whoever only scores or answers keeps nothing.
  checks.validate(tiny(recipe=REPLAYED), 'evaluate')


@pytest.mark.parametrize(
  'recipe', [{'name': 'gkd'}, {**REPLAYED, 'replay': 0.0}]
)
def test_room_without_replays_is_refused(problems, tiny, recipe):
  found = problems(tiny(recipe=recipe, replay_size=8))
  assert 'replay_size=8 does nothing' in found
  checks.validate(tiny(recipe=recipe))


def test_a_prompt_is_replayed_with_one_response(problems, tiny):
  terms = [{'loss': 'reverse_kl', 'source': x} for x in ('student', 'replay')]
  terms[1]['name'] = 'earlier'
  recipe = {'name': 'terms', 'terms': terms}
  given = {'recipe': recipe, 'sampling__samples_per_prompt': 2}
  # With everything else that is wrong.
  found = problems(tiny(**given, replay_size=2))
  assert 'keeps one response a prompt to replay: set it to 1' in found
  assert 'replay_size=2: recipe' in found
  checks.validate(tiny(recipe=recipe, replay_size=8))


def test_somebody_must_say_what_is_replayed(problems, tiny):
  recipe = {'name': 'distillm', 'student': 0.0, 'replay': 0.5}
  found = problems(tiny(recipe=recipe, replay_size=8))
  assert 'none samples it there' in found
