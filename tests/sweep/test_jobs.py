"""A sweep's jobs: right before anything starts, and remembered."""

import json
import pathlib

import pytest

from kdjax.sweep import axes, jobs

CONFIG = 'configs/gkd_g2p.py'


@pytest.fixture(autouse=True)
def root(monkeypatch):
  monkeypatch.chdir(jobs.__file__.rpartition('/kdjax/')[0])


def plan(*along, config=CONFIG, **options):
  return jobs.plan(config, [axes.Axis.parse(each) for each in along], **options)


def test_every_combination_runs_with_every_seed_beside_one_reference(tmp_path):
  short = ['--config.steps=100']
  sweep = plan(
    'student_fraction=0,1', 'beta=0.1,0.5,0.9', seeds=range(3), flags=short
  )
  assert sweep.axes == {'student_fraction': [0, 1], 'beta': [0.1, 0.5, 0.9]}
  assert len(sweep.runs) == 18 == len({job.name for job in sweep.runs})
  # A picture of the whole comes with the first seed.
  assert [job.seed for job in sweep.runs[:6]] == [0] * 6
  (reference,) = sweep.references
  assert reference.kind == 'reference' and sweep.jobs[0] == reference
  last = sweep.runs[-1]
  assert last.values == {'student_fraction': 1, 'beta': 0.9}
  assert last.name == 'student_fraction=1,beta=0.9,seed=2'
  assert last.command(tmp_path) == (
    f'python -m kdjax.main --config={CONFIG}:lam=1,beta=0.9 '
    '--config.steps=100 --config.seed=2 '
    '--config.eval.references=False --config.share_programs=True '
    f'--workdir={tmp_path}/{last.name}'
  )
  assert {job.reference for job in sweep.runs} == {reference.name}


def test_runs_of_other_models_have_a_reference_of_their_own():
  sweep = plan('beta=0.1,0.5', 'eval.test_examples=8,16')
  assert len(sweep.references) == 2
  for run in sweep.runs:
    (one,) = [job for job in sweep.references if job.name == run.reference]
    count = f'--config.eval.test_examples={run.values["eval.test_examples"]}'
    assert count in one.flags
  assert len(plan('eval.every=50,100').references) == 1


def test_all_that_is_wrong_is_said_once_before_anything_starts():
  with pytest.raises(ValueError) as error:
    plan('beta=0.5,1.5', 'steps=0,60', 'lamm=1,2')
  text = str(error.value)
  assert text.startswith('8 setting(s) have 4 problem(s):')
  assert 'beta=1.5: expected 0 to 1 (beta=1.5,steps=0,lamm=1 and 3 mo' in text
  for wrong in ('steps=0: must be at least 1', "takes no ['lamm']"):
    assert text.count(wrong) == 1


def test_an_axis_that_changes_nothing_is_told(tmp_path):
  text = pathlib.Path('configs/sft_g2p.py').read_text()
  path = tmp_path / 'mine.py'
  path.write_text(text.replace("model='student'", "model='student', mine=0"))
  with pytest.raises(ValueError, match='mine=2 is the same run as mine=1'):
    plan('mine=1,2', config=str(path))
  with pytest.raises(ValueError, match='with --seeds'):
    plan('seed=0,1')


def test_a_folder_remembers_its_sweep_and_takes_in_more(tmp_path):
  small = plan('beta=0.1', seeds=range(1)).save(tmp_path)
  assert jobs.Sweep.load(tmp_path) == small
  done = tmp_path / small.runs[0].name
  done.mkdir()
  (done / 'results.json').write_text('{}')
  both = plan('beta=0.1,0.9', seeds=range(2)).save(tmp_path)
  assert both == jobs.Sweep.load(tmp_path)
  assert (both.axes, both.seeds) == ({'beta': [0.1, 0.9]}, [0, 1])
  states = {job.name: job.done(tmp_path) for job in both.runs}
  assert len(states) == 4 and sum(states.values()) == 1
  with pytest.raises(ValueError, match='is there with other flags'):
    plan('beta=0.1', flags=['--config.steps=60']).save(tmp_path)
  with pytest.raises(ValueError, match='holds a sweep of --config=configs/gkd'):
    plan(config='configs/sft_g2p.py').save(tmp_path)
  found = json.loads((tmp_path / jobs.FILE).read_text())
  assert set(found['runs'][0]) == {
    'name',
    'flags',
    'values',
    'seed',
    'reference',
  }


def test_analyses_follow_the_runs_in_their_workdirs(tmp_path):
  sweep = plan('beta=0.1,0.9', analyses='exposure_bias').save(tmp_path)
  assert jobs.Sweep.load(tmp_path) == sweep
  run, analysis = sweep.runs[1], sweep.analyses[1]
  assert sweep.jobs[-2:] == sweep.analyses
  assert analysis.name == run.name
  assert analysis.arguments(tmp_path) == [
    '--mode=evaluate',
    *run.flags,
    '--config.eval.analyses=exposure_bias',
    f'--workdir={tmp_path}/{run.name}',
  ]
  (tmp_path / run.name).mkdir()
  (tmp_path / run.name / 'results.json').write_text('{}')
  assert run.done(tmp_path) and not analysis.done(tmp_path)
  with pytest.raises(ValueError, match='unknown ..bias.*exposure_bias'):
    plan('beta=0.1', analyses='bias')


def test_names_of_folders_are_plain_and_each_its_own():
  long = {f'axis_{i}': 'value' * 5 for i in range(9)}
  names = [
    jobs._folder({'path': 'a/b'}),
    jobs._folder({'path': 'a_b'}),
    jobs._folder(long),
    jobs._folder({**long, 'seed': 1}),
  ]
  assert len(set(names)) == 4
  assert all('/' not in name and len(name) < 160 for name in names)
