"""What a recipe needs of the rest of a config."""

from kdjax import recipes, rewards
from kdjax.checks import caches, labels, replays
from kdjax.checks.models import given
from kdjax.config import ONLINE, Config, Task, task_section, tasks_of
from kdjax.data import tasks
from kdjax.models import api
from kdjax.objective import REWARDS, Objective


def problems(c: Config, mode: str) -> list[str]:
  """Returns what is wrong with the recipe, and what it lacks."""
  args = dict(c.recipe)
  if 'name' not in args:
    return []  # which `config.check` says
  name = args.pop('name')
  found = recipes.problems(name, args)
  if found or mode != 'train':
    return found
  goal = recipes.build(name, **args).caching(caches.cached(c))
  found = _models_of_recipe(c, name, goal) + _sampling_problems(c, name, goal)
  for task in sorted(goal.tasks()):
    if task and task not in c.tasks:
      found.append(
        f'recipe {name!r} reads the task {task!r}: define tasks.{task}, such '
        f"as {{'name': 'text', ...}}, or set the recipe's lm_task or task"
      )
      continue
    part = tasks_of(c)[task]
    if 'teacher' in goal.sources(task) and not part.teacher_responses:
      found.append(
        f'recipe {name!r} learns from teacher responses: write them with '
        f'--mode=generate and name their directory in {task_section(task)}.'
        f'teacher_responses, or set that to {ONLINE!r}'
      )
    found += _label_problems(part, name, goal, task)
  found += caches.problems(c, name, goal) + replays.problems(c, name, goal)
  return found + _reward_problems(goal) + _prompt_problems(c, name, goal)


def _label_problems(
  part: Task, name: str, goal: Objective, task: str
) -> list[str]:
  try:
    held = tasks.get(part.name, **part.args).gives
  except (ValueError, OSError):
    return []  # which `checks.tasks` says
  return labels.problems(name, goal, task, part.name, held)


def _models_of_recipe(c: Config, name: str, goal: Objective) -> list[str]:
  found = []
  reads_teacher = 'teacher' in goal.models() or c.teacher_mix > 0
  parts = tasks_of(c).values()
  reads_teacher |= any(part.teacher_responses == ONLINE for part in parts)
  if reads_teacher and not given(c.teacher):
    who = f'recipe {name!r}'
    if 'teacher' not in goal.models():
      who = 'teacher_mix' if c.teacher_mix else f'teacher_responses={ONLINE!r}'
    found.append(
      f'{who} reads the teacher: give teacher.path or teacher.config'
    )
  if 'reward' in goal.models() and not c.reward.path:
    found.append(
      f'recipe {name!r} reads a reward model: give reward.path, the student/ '
      "that 'reward_regression' or 'preference_reward' left"
    )
  return found


def _sampling_problems(c: Config, name: str, goal: Objective) -> list[str]:
  """What rollouts can't give to the terms that read them."""
  found, samples = [], c.sampling.samples_per_prompt
  grouped = [term.name for term in goal.terms if term.compares_samples]
  if grouped and samples < 2:
    found.append(
      f'terms {grouped} of recipe {name!r} compare the samples of a prompt: '
      'set sampling.samples_per_prompt to 2 or more'
    )
  if grouped and not c.sampling.temperature:
    found.append(
      f'sampling.temperature=0: the samples of a prompt are all the same, but '
      f'terms {grouped} of recipe {name!r} compare them: set it to 1'
    )
  mixed = [
    term.name
    for term in goal.terms
    if any(d.sampled and len(d.mixture()) > 1 for d in term.draws())
    or (len(term.draws()) > 1 and not any(d.rank for d in term.draws()))
    and 'student' in term.sources()
  ]
  if mixed and samples > 1:
    found.append(
      f'terms {mixed} of recipe {name!r} take one response a prompt, but '
      f'sampling.samples_per_prompt={samples}: set it to 1'
    )
  trusting = any(term.trusts_samples for term in goal.terms)
  if (trusting or 'samples' in goal.needs()) and not c.sampling.temperature:
    found.append(
      'sampling.temperature=0: greedy responses are no samples of the policy, '
      f'which recipe {name!r} learns from: set it to 1'
    )
  return found + _policy_problems(c, name, goal)


def _policy_problems(c: Config, name: str, goal: Objective) -> list[str]:
  """Samples of another policy than terms take them for, or than are drawn."""
  found, s = [], c.sampling
  rollouts = {
    'rollout_ahead': c.rollout_ahead,
    'behaviour_sync': c.behaviour_sync,
    'teacher_mix': c.teacher_mix,
  }
  altered = {
    **rollouts,
    'updates_per_rollout': c.updates_per_rollout > 1,
    'sampling.temperature': s.temperature not in (0, 1),  # 0 is told above
    'sampling.top_k': s.top_k,
    'sampling.top_p': s.top_p < 1,
    'sampling.min_p': s.min_p,
    'sampling.min_new_tokens': s.min_new_tokens,
  }
  elsewhere = [key for key, value in altered.items() if value]
  plain = [term.name for term in goal.terms if term.trusts_samples]
  if plain and elsewhere:
    found.append(
      f"terms {plain} of recipe {name!r} take samples for the policy's own, "
      f"but {elsewhere} sample from another: set the recipe's importance=True, "
      'or leave these out'
    )
  rollouts['sampling.samples_per_prompt'] = s.samples_per_prompt > 1
  idle = [key for key, value in rollouts.items() if value]
  if idle and not any(draw.sampled for draw in goal.draws()):
    found.append(
      f'{idle} do nothing: recipe {name!r} draws nothing from the student'
    )
  if c.rollout_ahead and not goal.steady:
    found.append(
      f'rollout_ahead=True: recipe {name!r} samples for another number of rows '
      "at every step: make its fraction constant and its coin 'example'"
    )
  return found


def _prompt_problems(c: Config, name: str, goal: Objective) -> list[str]:
  """Layers match token by token: both models must have read the same ones."""
  layers = goal.needs() & set(api.CAPTURES)
  if layers and c.task.teacher_prompts:
    return [
      f'task.teacher_prompts={list(c.task.teacher_prompts)}: recipe {name!r} '
      "matches layers, for which the teacher must read the student's prompt: "
      'leave them out'
    ]
  return []


def _reward_problems(goal: Objective) -> list[str]:
  found = []
  for name in sorted(goal.foreign_rewards()):
    try:
      rewards.get(name)
    except ValueError as error:
      known = sorted(set(REWARDS) - {'teacher_baseline'})
      found.append(f'{error}; models give {known}')
  return found
