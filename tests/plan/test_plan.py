"""Plans of small models: what is counted, held, said and advised."""

import dataclasses
import json
import pathlib

import jax
import pytest

import kdjax.plan
from kdjax import checks
from kdjax.plan import (
  advice,
  chips,
  counting,
  formula,
  job,
  programs,
  report,
)
from tests.plan import cases

pytest.importorskip('libtpu')

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope='module')
def plan():
  """T5s on four chips: the one plan that the quick tests compile."""
  return kdjax.plan.make(cases.config(), 'v5e:2x2')


def test_counted_flops_are_the_formulas(plan):
  # Nothing here is done twice: 3% are prompts' and heads' odds and ends.
  for program in plan.programs:
    assert program.cost.flops == pytest.approx(program.formula, rel=0.03)
    assert not program.cost.unknown


@pytest.mark.slow
@pytest.mark.parametrize('remat', [False, True])
def test_counted_flops_are_the_formulas_of_decoder_only_models(remat):
  c = cases.config('family=llama', **{'student.remat': remat})
  for program in kdjax.plan.make(c, 'v5e:2x2').programs:
    assert program.cost.flops == pytest.approx(program.formula, rel=0.05)


def test_what_is_held_is_the_sum_of_the_shards(plan):
  """By hand: half of what is large, since fsdp=2."""
  made = plan.job
  count = sum(x.size for x in jax.tree.leaves(made.models['student'][1]))
  held = plan.programs[0].held
  assert held['parameters'] == pytest.approx(4 * count / 2, rel=0.02)
  assert held['optimizer'] == pytest.approx(8 * count / 2, rel=0.02)
  teacher = sum(x.size for x in jax.tree.leaves(made.models['teacher'][1]))
  assert held['teacher'] == pytest.approx(4 * teacher / 2, rel=0.02)


def test_a_learned_reward_is_planned_as_it_is_loaded():
  c = cases.get_config()
  c.recipe = {'name': 'reinforce', 'reward': 'learned', 'baseline': 'none'}
  c.reward.path, c.mesh.fsdp = 'kdjax:g2p-student', 1
  made = job.make(checks.validate(c, 'plan'), jax.devices()[:1])
  with jax.set_mesh(made.mesh):
    programs.lower_update(made)


@pytest.mark.slow
def test_arguments_are_what_the_compiler_is_given():
  """Of a CPU, whose arrays aren't padded, to the byte."""
  c = cases.config(**{'mesh.fsdp': 1})
  made = job.make(c, jax.devices()[:1])
  with jax.set_mesh(made.mesh):
    lowered = programs.lower_update(made)
  given = (made.state, made.frozen, made.batch)
  memory = lowered.compile().memory_analysis()
  responses = lowered.in_avals[0][3]
  extra = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(responses))
  unused = made.batch.responses['data'], made.batch.example_id
  expected = programs.on_chip(given) + extra - programs.on_chip(unused)
  assert memory.argument_size_in_bytes == expected


def test_a_cached_teacher_is_part_of_the_batch_and_no_model(tmp_path):
  """Of a cache that isn't written yet: what `generate` says of it."""
  terms = ({'loss': 'forward_kl', 'source': 'teacher'},)
  c = cases.config(
    **{
      'teacher.config': {},
      'recipe': {'name': 'terms', 'terms': terms},
      'task.teacher_responses': str(tmp_path / 'responses'),
      'task.teacher_logprobs': 'cached',
      'generate.top_logprobs': 8,
      'mesh.fsdp': 1,
    }
  )
  made = job.make(c, jax.devices()[:1])
  top = made.batch.responses['teacher'].teacher
  assert top.ids.shape == top.logprobs.shape == (16, 16, 8)
  assert top.tail.shape == (16, 16) and not made.frozen
  with jax.set_mesh(made.mesh):
    compiled = programs.lower_update(made).compile()
  cost = counting.count(compiled.as_text())
  assert cost.flops == pytest.approx(formula.update(made), rel=0.03)
  # Without either nobody knows how large it will be.
  without = dataclasses.replace(c.generate, top_logprobs=0)
  with pytest.raises(FileNotFoundError, match='no teacher responses in'):
    job.make(dataclasses.replace(c, generate=without), jax.devices()[:1])


@pytest.mark.slow
def test_earlier_samples_are_held_whole_and_learned_from():
  recipe = {'name': 'distillm', 'student': 0.25, 'replay': 0.5}
  c = cases.config(**{'recipe': recipe, 'replay_size': 40, 'mesh.fsdp': 1})
  made = job.make(c, jax.devices()[:1])
  # Tokens and masks of prompts and responses, ids and steps; the next place.
  assert programs.held(made)['replay'] == 40 * (5 * (32 + 16) + 8) + 4
  with jax.set_mesh(made.mesh):
    lowered = programs.lower_update(made)
  (responses,) = lowered.in_avals[0][3]
  assert responses.asked.prompt.tokens.shape == (16, 32)
  cost = counting.count(lowered.compile().as_text())
  assert cost.flops == pytest.approx(formula.update(made), rel=0.03)


def test_peak_is_the_sum_of_its_parts_and_fits(plan):
  for program in plan.programs:
    parts = (*program.held.values(), program.caches, program.temporaries)
    assert program.peak == sum(parts) + program.code
  assert plan.fits and not plan.changes
  assert plan.spare == chips.CHIPS['v5e'].hbm - plan.largest.peak


def test_collectives_gather_the_parameters(plan):
  """With fsdp=2 a chip lacks half: the teacher's once, the student's thrice."""
  sizes = {
    role: sum(x.size for x in jax.tree.leaves(params))
    for role, (_, params) in plan.job.models.items()
  }
  update = plan.programs[-1]
  gathered = update.cost.wire['all-gather']
  assert 2 * sizes['teacher'] / 2 < gathered
  # Embeddings, and what is small, are gathered in float32.
  assert gathered < 4 * (sizes['teacher'] + 3 * sizes['student']) / 2


def test_the_roofline_is_the_slowest_limit(plan):
  for program in plan.programs:
    limit, binding = programs.roofline(program, plan.chip)
    limits = programs.seconds(program.cost, plan.chip)
    assert limit == max(limits.values()) == limits[binding]
    assert limits['memory'] == program.cost.bytes / 819e9


def test_the_verdict_flips_with_the_memory(plan):
  room = plan.largest.peak
  enough = dataclasses.replace(plan.chip, hbm=room)
  short = dataclasses.replace(plan.chip, hbm=0.9 * room)
  assert dataclasses.replace(plan, chip=enough).fits
  scarce = dataclasses.replace(plan, chip=short)
  assert not scarce.fits and scarce.changes
  text = report.markdown(scarce)
  assert '**It does not fit**' in text and scarce.changes[0].setting in text


@pytest.mark.slow
def test_the_verdict_flips_when_the_models_double(plan):
  wide = kdjax.plan.make(cases.config('width=256'), 'v5e:2x2')
  between = (plan.largest.peak + wide.largest.peak) / 2
  chip = dataclasses.replace(plan.chip, hbm=between)
  assert dataclasses.replace(plan, chip=chip).fits
  assert not dataclasses.replace(wide, chip=chip).fits


def test_advice_saves_what_it_says(plan):
  """Splitting what data=2 copies: held to what that job really holds."""
  program = plan.largest
  chip = dataclasses.replace(plan.chip, hbm=program.peak - 1)
  change = advice.changes(plan.job, chip, program)[0]
  assert change.setting == 'mesh.fsdp=4'
  split = job.make(
    cases.config(**{'mesh.fsdp': 4}), chips.devices('v5e:2x2')[1]
  )
  saved = sum(program.held.values()) - sum(programs.held(split).values())
  assert change.saves == pytest.approx(saved, rel=0.05)


def test_advice_adds_up_until_it_is_enough(plan):
  # A small model's program is larger than it: nothing makes that smaller.
  program = dataclasses.replace(plan.largest, code=0.0)
  chip = dataclasses.replace(plan.chip, hbm=0.45 * program.peak)
  found = advice.changes(plan.job, chip, program)
  settings = [change.setting.split('=')[0] for change in found]
  assert settings[0] == 'mesh.fsdp' and len(set(settings)) == len(settings) > 1
  assert sum(change.saves for change in found) >= 0.55 * program.peak


def test_report_and_numbers_agree(plan):
  text, numbers = report.markdown(plan), report.data(plan)
  json.dumps(numbers)
  assert '**It fits**' in text and 'estimate' in text
  for entry in numbers['programs']:
    assert f'{entry["peak"] / chips.GIB:.2f}' in text
    assert entry['limit'] in ('compute', 'memory', 'network')
  assert numbers['chips'] == 4 and numbers['mesh']['fsdp'] == 2
  assert 'those that kdjax carries' not in text


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'mesh.tensor': 3}, 'tensor=3 does not fit 4 devices'),
    ({'batch_size': 6}, 'batch_size=6 does not divide over data=2'),
    ({'batch_size': 24, 'micro_batch_size': 6}, 'micro_batch_size=6'),
  ],
)
def test_meshes_that_cannot_be(changes, message):
  devices = chips.devices('v5e:2x2')[1]
  with pytest.raises(ValueError, match=message):
    job.make(cases.config(**changes), devices)


def test_models_of_the_hub_need_no_hub(monkeypatch):
  from kdjax import hub

  def gone(*args, **options):
    raise FileNotFoundError('no network')

  monkeypatch.setattr(hub, 'locate', gone)
  names = 'Qwen/Qwen2.5-7B-Instruct', 'Qwen/Qwen2.5-0.5B-Instruct'
  paths = {'teacher.path': names[0], 'student.path': names[1]}
  vocabulary = {'task.vocabulary': names[1], 'teacher.weights': 'bfloat16'}
  c = cases.get_config()
  c.teacher.config = c.student.config = {}
  c.update_from_flattened_dict({**paths, **vocabulary})
  from kdjax import checks

  made = job.make(checks.validate(c, 'plan'), chips.devices('v5p:2x2x1')[1])
  assert set(made.known) == set(names)
  assert made.settings.num_tokens == 151_665
  assert programs.held(made)['teacher'] == pytest.approx(
    2 * 7_615_616_512 / 2, rel=0.001
  )
  with pytest.raises(FileNotFoundError):
    c.teacher.path = 'no-one/no-such-model'
    job.make(checks.validate(c, 'plan'), chips.devices('v5p:2x2x1')[1])


def test_a_forward_pass_is_two_flops_a_weight_and_token():
  made = job.make(cases.config('family=llama'), chips.devices('v5e:2x2')[1])
  model, params = made.models['teacher']
  blocks = params['decoder']
  weights = sum(
    x.size
    for path, x in jax.tree_util.tree_leaves_with_path(blocks)
    if 'kernel' in jax.tree_util.keystr(path)
  )
  sizes = formula.shape(model)
  assert sizes.decoder_layers * sizes.layer == weights
  assert sizes.decoder_layers * sizes.tokens(7, seen=0) == 2 * weights * 7


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--topology=v5e:2x2', '--config.mesh.tensor=3'], 'not fit 4 devices'),
    ([], 'needs --topology'),
  ],
)
def test_the_command_says_what_cannot_be_planned(command, flags, message):
  process = command('--mode=plan', *flags, config=str(HERE / 'cases.py'))
  printed, log = process.communicate(timeout=300)
  assert process.returncode == 1 and not printed
  assert log.startswith('kdjax: ') and message in log
  assert log.count('\n') == 1


@pytest.mark.slow
def test_the_command_prints_and_writes_a_plan(command, tmp_path):
  flags = '--mode=plan', '--topology=v5e:2x2', f'--workdir={tmp_path}'
  process = command(*flags, config=str(HERE / 'cases.py'))
  printed, log = process.communicate(timeout=900)
  assert process.returncode == 0 and 'WARNING' not in log
  assert printed.startswith('# Plan for v5e:2x2')
  assert printed.rstrip() == (tmp_path / 'plan.md').read_text().rstrip()
  numbers = json.loads((tmp_path / 'plan.json').read_text())
  assert numbers['fits'] and len(numbers['programs']) == 2
