"""Tests of `--mode=evaluate`: checkpoints, directories, texts, analyses."""

import errno
import json
import shutil

import pytest

from kdjax import checks, evaluate, evaluation, roles
from tests.reliability import disturbed


def test_evaluate_scores_the_best_checkpoint(
  finished, tiny, tmp_path, contents, capfd
):
  shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
  # What a run that goes on is writing at this moment.
  saving = tmp_path / 'checkpoints' / '45.orbax-checkpoint-tmp'
  saving.mkdir()
  (saving / 'part').write_text('half of it')
  before = contents(tmp_path)
  evaluate.evaluate(checks.validate(tiny(), 'evaluate'), str(tmp_path))
  assert '| teacher' in capfd.readouterr().out
  found = json.loads((tmp_path / 'evaluation.json').read_text())
  # The run exported its best, too.
  trained = json.loads((tmp_path / 'results.json').read_text())
  assert found == {
    'teacher': trained['teacher'],
    'student': trained['student after'],
  }
  first = (tmp_path / 'examples.jsonl').read_text().splitlines()[0]
  systems = ['teacher', 'student after', 'student']
  assert list(json.loads(first)['responses']) == systems
  after = contents(tmp_path)
  assert before.pop('examples.jsonl') != after['examples.jsonl']
  assert {name: after[name] for name in before} == before


def test_a_run_without_a_whole_checkpoint_is_not_scored(
  finished, tiny, tmp_path, contents
):
  shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
  for seal in (tmp_path / 'checkpoints').glob('*/seal.json'):
    seal.write_bytes(seal.read_bytes().replace(b'"step": ', b'"step": 1'))
  before = contents(tmp_path)
  with pytest.raises(
    ValueError, match='no checkpoint in .* is whole: .*step 40: .*checksum'
  ):
    evaluate.evaluate(checks.validate(tiny(), 'evaluate'), str(tmp_path))
  assert contents(tmp_path) == before


def test_a_full_disk_is_told_by_the_name_of_the_tables(tmp_path):
  path = tmp_path / 'evaluation.md'
  path.write_text('scores' * 1000)
  with pytest.raises(OSError) as error, disturbed.small_files(6000):
    evaluate._publish(tmp_path, {})
  assert error.value.errno == errno.EFBIG
  assert error.value.filename == str(path)
  assert path.read_text() == 'scores' * 1000


def test_evaluate_refuses_the_workdir_of_another_config(
  finished, tiny, contents
):
  before = contents(finished)
  with pytest.raises(ValueError, match='max_response_tokens: 6 → 5'):
    evaluate.evaluate(
      checks.validate(tiny(task__max_response_tokens=5), 'evaluate'),
      str(finished),
    )
  assert contents(finished) == before


def test_evaluate_without_a_run_scores_the_config_s_student(
  finished, tiny, tmp_path
):
  c = tiny(
    student__config={},
    student__path=str(finished / 'student'),
    eval__references=False,
  )
  evaluate.evaluate(checks.validate(c, 'evaluate'), str(tmp_path / 'new'))
  found = json.loads((tmp_path / 'new' / 'evaluation.json').read_text())
  trained = json.loads((finished / 'results.json').read_text())
  assert list(found) == ['student']
  # The same weights, read from the export instead of from the checkpoint.
  for name, value in trained['student after'].items():
    assert found['student'][name] == pytest.approx(value, rel=1e-5), name


def analyses_of(c, workdir):
  """Evaluates a config; returns its analyses, None where it has none."""
  evaluate.evaluate(checks.validate(c, 'evaluate'), str(workdir))
  path = workdir / 'analyses.json'
  return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture(scope='module')
def analysed(tiny, tmp_path_factory):
  """A workdir with every analysis of a student as it was initialised."""
  workdir = tmp_path_factory.mktemp('analysed')
  # As the command line gives names.
  c = tiny(
    eval__analyses=(','.join(evaluation.ANALYSES),),
    eval__samples_per_prompt=2,
    eval__temperatures=(0.1, 1),
    eval__length_edges=(3,),
  )
  analyses_of(c, workdir)
  return workdir


@pytest.mark.slow
def test_analyses_are_written_as_others_read_them(analysed):
  found = json.loads((analysed / 'analyses.json').read_text())
  assert list(found) == list(evaluation.ANALYSES)
  bias = found['exposure_bias']['student']
  count = len(bias['length'])
  assert bias['length'] == list(range(1, count + 1)) and 1 < count <= 6
  for name in (
    'ex_error',
    'excess_error_low',
    'excess_error_high',
    'student_divergence',
    'teacher_divergence',
    'alive',
  ):
    assert len(bias[name]) == count
  cold, warm = found['temperatures']['student']
  assert (cold['temperature'], warm['temperature']) == (0.1, 1)
  assert cold['self_bleu'] > warm['self_bleu']
  assert 'exact_match_low' in cold and 'phoneme_error_rate' in warm
  covered = found['coverage']['student']
  for name in ('likelihood', 'coverage', 'teacher_dist'):
    assert covered[f'{name}_low'] <= covered[name] <= covered[f'{name}_high']
  assert set(found['length_buckets']) == {'teacher', 'student'}
  # The test examples have four words each.
  short, long = found['length_buckets']['student']
  assert (short['low'], short['high'], short['examples']) == (0, 3, 0)
  assert short['exact_match'] is None
  assert (long['low'], long['high'], long['examples']) == (4, None, 12)
  scores = json.loads((analysed / 'evaluation.json').read_text())['student']
  assert long['phoneme_error_rate'] == scores['phoneme_error_rate']
  answers = found['answers']['student']
  assert answers['samples'] == 2 and answers['answer'] == 'the whole text'
  assert 0 <= answers['pass@1'] <= 100


@pytest.mark.slow
def test_tables_of_analyses_stand_beneath_the_scores(analysed):
  text = (analysed / 'evaluation.md').read_text()
  places = [text.index(f'\n{name}: ') for name in evaluation.ANALYSES]
  assert places == sorted(places)
  assert text.index('| phoneme_error_rate') < places[0]
  for each in ('ExError%', 'R_llh', 'TeacherDist', 'self_bleu', 'cons@2'):
    assert each in text


@pytest.mark.slow
def test_devices_share_the_analyses(analysed, command, tmp_path, monkeypatch):
  """Four devices find what one does: samples don't depend on their number."""
  monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=4')
  process = command(
    f'--workdir={tmp_path}',
    '--mode=evaluate',
    '--config.eval.analyses=exposure_bias,coverage',
    '--config.eval.samples_per_prompt=2',
  )
  _, log = process.communicate(timeout=300)
  assert process.returncode == 0, log
  ours = json.loads((analysed / 'analyses.json').read_text())
  theirs = json.loads((tmp_path / 'analyses.json').read_text())
  assert list(theirs) == ['exposure_bias', 'coverage']
  for name, each in theirs.items():
    for key, value in each['student'].items():
      expected = ours[name]['student'][key]
      assert value == pytest.approx(expected, rel=1e-3, abs=0.05), key


def write_texts(path, finished):
  """Writes what the trained student said; returns that and its scores."""
  lines = (finished / 'examples.jsonl').read_text().splitlines()
  said = [json.loads(x)['responses']['student after']['text'] for x in lines]
  if path.suffix == '.jsonl':
    rows = [{'id': str(i), 'text': text} for i, text in enumerate(said)]
    lines = [json.dumps(row) + '\n' for row in reversed(rows)]
  else:
    lines = [text + '\n' for text in said]
  path.write_text(''.join(lines))
  return json.loads((finished / 'results.json').read_text())['student after']


@pytest.mark.parametrize('name', ['said.txt', 'said.jsonl'])
def test_texts_score_what_the_model_that_said_them_does(
  name, finished, tiny, tmp_path, monkeypatch
):
  scores = write_texts(tmp_path / name, finished)
  monkeypatch.setattr(roles, 'load', None)  # no model is
  c = tiny(
    student__config={},
    teacher__config={},
    eval__texts=str(tmp_path / name),
    eval__analyses=('length_buckets',),
  )
  found = analyses_of(c, tmp_path / 'run')
  assert list(found['length_buckets']) == ['texts']
  given = json.loads((tmp_path / 'run' / 'evaluation.json').read_text())
  for metric in ('exact_match', 'phoneme_error_rate'):
    for end in ('', '_low', '_high'):
      assert given['texts'][metric + end] == scores[metric + end]
  first = (tmp_path / 'run' / 'examples.jsonl').read_text().splitlines()[0]
  assert 'texts' in json.loads(first)['responses']


def test_texts_that_do_not_match_the_examples_write_nothing(tiny, tmp_path):
  (tmp_path / 'few.txt').write_text('A\nB\n')
  c = tiny(eval__texts=str(tmp_path / 'few.txt'))
  with pytest.raises(
    ValueError, match='2 responses, and the split 12 examples'
  ):
    analyses_of(c, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_texts_need_gold_responses(tiny, tmp_path):
  (tmp_path / 'said.txt').write_text('A\n' * 12)
  c = tiny(
    eval__texts=str(tmp_path / 'said.txt'),
    task__args__target=None,
    recipe={'name': 'on_policy_kd'},
  )
  with pytest.raises(ValueError, match='has no gold responses'):
    analyses_of(c, tmp_path / 'run')
