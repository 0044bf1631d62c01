"""What a config gets wrong that only the registries can tell."""

import math
import pathlib

import ml_collections

from kdjax import evaluation, partitioning, recipes, rewards
from kdjax.config import Config, ConfigError, Model, check
from kdjax.data import tasks
from kdjax.models import api, families
from kdjax.objective import REWARDS, Objective

ROLES = ('student', 'teacher', 'reference', 'reward')


def validate(config: ml_collections.ConfigDict, mode: str = 'train') -> Config:
  """Returns a config's typed view, checked against every registry.

  Args:
    config: as a config file returns it.
    mode: what it is for: 'train', 'evaluate', 'generate' or 'plan', which
      checks what training does.

  Raises:
    ConfigError: listing every problem, before any device is touched.
  """
  view, found = check(config)
  mode = 'train' if mode == 'plan' else mode
  found += _recipe_problems(view, mode)
  found += _task_problems(view, mode)
  found += _model_problems(view, mode)
  found += _evaluation_problems(view, mode)
  if found:
    raise ConfigError(found)
  return view


def _recipe_problems(c: Config, mode: str) -> list[str]:
  args = dict(c.recipe)
  name = args.pop('name', None)
  if name is None:
    return []
  found = recipes.problems(name, args)
  if found or mode != 'train':
    return found
  goal = recipes.build(name, **args)
  found = _models_of_recipe(c, name, goal) + _sampling_problems(c, name, goal)
  for task in sorted(goal.tasks()):
    where = f'tasks.{task}' if task else 'task'
    if task and task not in c.tasks:
      found.append(
        f'recipe {name!r} reads the task {task!r}: define tasks.{task}, such '
        f"as {{'name': 'text', ...}}, or set the recipe's lm_task or task"
      )
    elif 'teacher' in goal.sources(task):
      part = c.tasks[task] if task else c.task
      if not part.teacher_responses:
        found.append(
          f'recipe {name!r} learns from teacher responses: write them with '
          f'--mode=generate and name their directory in {where}.'
          f"teacher_responses, or set that to 'online'"
        )
  return found + _reward_problems(goal) + _prompt_problems(c, name, goal)


def _models_of_recipe(c: Config, name: str, goal: Objective) -> list[str]:
  found = []
  reads_teacher = 'teacher' in goal.models() or c.teacher_mix > 0
  parts = [c.task, *c.tasks.values()]
  reads_teacher |= any(part.teacher_responses == 'online' for part in parts)
  if reads_teacher and not given(c.teacher):
    who = f'recipe {name!r}'
    if 'teacher' not in goal.models():
      who = 'teacher_mix' if c.teacher_mix else "teacher_responses='online'"
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
  if 'samples' in goal.needs() and not c.sampling.temperature:
    found.append(
      'sampling.temperature=0: greedy responses have no log-probabilities to '
      f'weigh them by, which recipe {name!r} does: set it to 1'
    )
  return found + _policy_problems(c, name, goal)


def _policy_problems(c: Config, name: str, goal: Objective) -> list[str]:
  """Samples of another policy than terms take them for, or than are drawn."""
  found = []
  settings = {
    'rollout_ahead': c.rollout_ahead,
    'behaviour_sync': c.behaviour_sync,
    'teacher_mix': c.teacher_mix,
    'updates_per_rollout': c.updates_per_rollout - 1,
    'sampling.samples_per_prompt': c.sampling.samples_per_prompt - 1,
  }
  given = [key for key, value in settings.items() if value]
  elsewhere = [key for key in given if key != 'sampling.samples_per_prompt']
  plain = [term.name for term in goal.terms if term.trusts_samples]
  if plain and elsewhere:
    found.append(
      f"terms {plain} of recipe {name!r} take samples for the policy's own, "
      f"but {elsewhere} sample from another: set the recipe's importance=True, "
      'or leave these out'
    )
  idle = [key for key in given if key != 'updates_per_rollout']
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


def _task_problems(c: Config, mode: str) -> list[str]:
  found = []
  unknown = sorted(set(c.eval.metrics) - set(evaluation.METRICS))
  if unknown:
    known = sorted(evaluation.METRICS)
    found.append(f'eval.metrics: unknown {unknown}; known are {known}')
  lacking = evaluation.missing(c.eval.metrics)
  found += [f'eval.metrics: {each}' for each in lacking]
  for name, part in c.tasks.items():
    try:
      tasks.get(part.name, **part.args).check_split('train')
    except (ValueError, OSError) as error:
      found.append(f'tasks.{name}: {error}')
    if part.vocabulary != c.task.vocabulary:
      found.append(
        f'tasks.{name}.vocabulary={part.vocabulary!r} is not the main '
        f"task's, {c.task.vocabulary!r}: models read one vocabulary"
      )
  try:
    task = tasks.get(c.task.name, **c.task.args)
  except (ValueError, OSError) as error:
    return [*found, f'task: {error}']
  for split in _splits(c, mode):
    try:
      task.check_split(split)
    except ValueError as error:
      found.append(f'task: {error}')
  if mode == 'train' and c.eval.every:
    metrics = c.eval.metrics or task.metrics
    found += _ranking_problems(c, metrics)
  return found


def _splits(c: Config, mode: str) -> list[str]:
  """The splits that a run reads."""
  if mode == 'generate':
    return [c.generate.split]
  if mode == 'train':
    validation = [c.eval.split] if c.eval.every else []
    return ['train', *validation, c.eval.test_split]
  return [c.eval.test_split]


def _ranking_problems(c: Config, metrics: tuple[str, ...]) -> list[str]:
  """What is wrong with how checkpoints are ranked."""
  name, mode = c.checkpoint.best_metric or metrics[0], c.checkpoint.best_mode
  known = [*metrics, 'eos_fraction', 'length']
  if given(c.teacher) and c.eval.divergences:
    known += [
      f'{divergence}_{source}'
      for divergence in ('forward_kl', 'reverse_kl')
      for source in ('gold', 'student')
    ]
  if name not in known:
    return [
      f'checkpoint.best_metric={name!r} is not measured; measured are {known}'
    ]
  if evaluation.lower_is_better(name) and mode == 'max':
    return [
      f"checkpoint.best_mode='max', but less {name} is better: set it to 'min'"
    ]
  return []


def _evaluation_problems(c: Config, mode: str) -> list[str]:
  """What `--mode=evaluate` can't do; other modes leave it out."""
  known, e = evaluation.ANALYSES, c.eval
  found = []
  if unknown := sorted(set(e.analyses) - set(known)):
    found.append(f'eval.analyses: unknown {unknown}; known are {list(known)}')
  if mode != 'evaluate':
    if e.texts:
      found.append(f'eval.texts={e.texts!r} is for --mode=evaluate alone')
    return found
  if e.texts and not pathlib.Path(e.texts).is_file():
    found.append(f'eval.texts={e.texts!r}: there is no such file')
  for name in dict.fromkeys(e.analyses):
    if name not in known:
      continue
    needs = sorted(known[name].needs)
    if e.texts and needs:
      found.append(
        f'eval.analyses: {name!r} samples {" and ".join(needs)}, but '
        'eval.texts are scored without a model: leave one of them out'
      )
    elif 'teacher' in needs and not given(c.teacher):
      found.append(
        f'eval.analyses: {name!r} reads the teacher: give teacher.path or '
        'teacher.config'
      )
    if known[name].groups and e.samples_per_prompt < 2:
      found.append(
        f'eval.samples_per_prompt={e.samples_per_prompt}: {name!r} compares '
        'the samples of a prompt: set it to 2 or more'
      )
  return found + _setting_problems(c)


def _setting_problems(c: Config) -> list[str]:
  found, e = [], c.eval
  if 'temperatures' in e.analyses and not e.temperatures:
    found.append('eval.temperatures is empty: give some, such as 0.5,1.0')
  # Written so that NaN is refused.
  if not all(0 < each < math.inf for each in e.temperatures):
    found.append(
      f'eval.temperatures={e.temperatures}: all must be above 0, at which the '
      'samples of a prompt are the same'
    )
  edges = e.length_edges
  if list(edges) != sorted(set(edges)) or min(edges, default=0) < 0:
    found.append(f'eval.length_edges={edges}: they must rise, from 0 or more')
  return found


def _model_problems(c: Config, mode: str) -> list[str]:
  found = []
  for role in ROLES:
    try:
      if config := getattr(c, role).config:
        families.get(config)
    except ValueError as error:
      found.append(f'{role}.config: {error}')
    try:
      partitioning.check_rules(getattr(c, role).sharding)
    except ValueError as error:
      found.append(f'{role}.{error}')
  found += _storage_problems(c, mode)
  if mode == 'generate' and c.generate.draft_tokens:
    if c.generate.model != 'teacher' or c.generate.beams > 1:
      found.append(
        f'generate.draft_tokens={c.generate.draft_tokens}: the student drafts '
        "for a teacher that samples; set generate.model='teacher' and "
        'generate.beams=1'
      )
    elif not given(c.student):
      found.append(
        f'generate.draft_tokens={c.generate.draft_tokens}, but neither '
        'student.path nor student.config is given, which drafts'
      )
  if mode == 'generate' and not given(getattr(c, c.generate.model)):
    found.append(
      f'generate.model={c.generate.model!r}, but neither '
      f'{c.generate.model}.path nor {c.generate.model}.config is given'
    )
  return found


def _storage_problems(c: Config, mode: str) -> list[str]:
  """What can't train as it is stored, or wouldn't."""
  found, student = [], c.student
  rank, weights = student.lora.rank, student.weights
  if weights != 'float32' and not rank and mode == 'train':
    found.append(
      f'student.weights={weights!r}: what trains is float32. Leave it out, or '
      'train factors beside it: student.lora.rank=8'
    )
  scaled = c.optimizer.multiply_by_parameter_scale
  if rank and c.optimizer.name == 'adafactor' and scaled and mode == 'train':
    found.append(
      f'student.lora.rank={rank}: factors that start at zero hardly move in '
      "steps of their own size; set optimizer.name='adamw', or "
      'optimizer.multiply_by_parameter_scale=False'
    )
  for role in ROLES:
    model = getattr(c, role)
    if role != 'student' and model.lora.rank:
      found.append(
        f'{role}.lora.rank={model.lora.rank}: only the student trains; leave '
        'it out'
      )
    if model.remat_policy != 'nothing' and not model.remat:
      found.append(
        f'{role}.remat_policy={model.remat_policy!r} does nothing without '
        f'{role}.remat=True'
      )
  return found


def given(model: Model) -> bool:
  """Returns whether a config names a model."""
  return bool(model.path or model.config)
