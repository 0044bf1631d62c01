"""What is written can be read, and is the same each time."""

import shutil

import pytest

from kdjax.results import __main__ as command
from kdjax.results import load, write
from kdjax.results.writing import drawable


@pytest.mark.slow
def test_all_is_written(tmp_path, write_sweep):
  import pandas as pd

  axes = {'method': ['sft', 'gkd']}
  folder = write_sweep(tmp_path, axes, count=60)
  assert write(folder) == (folder / 'results.md').read_text()
  table = load(folder).table()
  read = pd.read_csv(folder / 'results.csv')
  assert list(read.columns) == list(table.columns)
  for name in ('exact_match', 'phoneme_error_rate_high', 'seeds'):
    assert read[name].tolist() == pytest.approx(table[name].tolist())
  files = {path.name: path.read_bytes() for path in folder.glob('figures/*')}
  names = [name for name, _ in drawable(load(folder))]
  kinds = ('png', 'svg')
  assert set(files) == {f'{name}.{kind}' for name in names for kind in kinds}
  write(folder)
  for name, before in files.items():
    assert (folder / 'figures' / name).read_bytes() == before, name


def test_parts_of_a_ragged_sweep_have_figures_of_their_own(ragged):
  found = dict(drawable(load(ragged)))
  assert {name for name in found if 'phoneme' in name} == {
    'heat_map_phoneme_error_rate_gkd',
    'bars_phoneme_error_rate',
  }
  curves = {name for name in found if name.startswith('exact_match_against_s')}
  assert {'exact_match_against_step', 'exact_match_against_step_gkd'} <= curves
  panels = [x for x in found['heat_map_exact_match_gkd']().axes if x.images]
  assert len(panels) == 1
  (bars,) = found['bars_exact_match']().axes
  names = [text.get_text() for text in bars.get_yticklabels()]
  assert names[:3] == ['sft', 'seqkd', 'gkd, student_fraction=0, beta=0.1']


def test_what_there_is_data_for_is_drawn(tmp_path, grid, write_sweep):
  curves = {
    f'exact_match_against_{x}' for x in ('step', 'seconds', 'sampled_tokens')
  }
  metrics = 'exact_match', 'phoneme_error_rate', 'forward_kl_student'
  maps = {f'heat_map_{metric}' for metric in metrics}
  assert {name for name, _ in drawable(load(grid))} == (
    maps | curves | {'temperatures', 'exposure_bias'}
  )
  folder = write_sweep(tmp_path, {'student_fraction': [0]}, count=20)
  found = {name for name, _ in drawable(load(folder))}
  assert found == curves - {'exact_match_against_sampled_tokens'}


def test_the_command_prints_the_markdown(tmp_path, grid, capsys):
  run = tmp_path / 'run'
  shutil.copytree(grid / 'student_fraction=1,beta=0.5,seed=1', run)
  (run / 'results.md').write_text("the run's own")
  # Without curves nothing is drawn, which takes seconds.
  for name in ('metrics.jsonl', 'analyses.json'):
    (run / name).unlink()
  assert command.main([str(run)]) == 0
  assert capsys.readouterr().out.startswith('# Results of run\n')
  assert (run / 'results.csv').exists()
  assert (run / 'results.md').read_text() == "the run's own"


def test_the_command_refuses_in_one_line(tmp_path, capsys):
  assert command.main([str(tmp_path / 'no')]) == 1
  error = capsys.readouterr().err
  assert error.startswith('error: ') and error.count('\n') == 1
  assert 'is not a folder' in error
