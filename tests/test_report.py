"""Tests of what a run leaves behind."""

import contextlib
import errno
import json
import shutil

import jax
import numpy as np
import pytest

from kdjax import build, checks, models, report, train
from tests.reliability import disturbed


def test_results_hold_every_system_and_metric(finished):
  results = json.loads((finished / 'results.json').read_text())
  assert list(results) == ['teacher', 'student after']
  for name in ('exact_match', 'phoneme_error_rate', 'length', 'eos_fraction'):
    assert all(name in scores for scores in results.values())
  for name in ('forward_kl_gold', 'reverse_kl_student'):
    value = results['student after'][name]
    assert results['student after'][f'{name}_low'] <= value
    assert value <= results['student after'][f'{name}_high']
  table = (finished / 'results.md').read_text()
  assert '| phoneme_error_rate (less is better)' in table
  assert 'file, test split' in table and 'gold:' in table


def test_curve_is_a_picture(finished):
  import matplotlib.image

  picture = matplotlib.image.imread(finished / 'curve.png')
  assert picture.ndim == 3 and min(picture.shape[:2]) > 100
  assert picture.std() > 0.01


def test_a_full_disk_is_told_by_the_name_of_the_plot(
  finished, tmp_path, contents
):
  for name in ('metrics.jsonl', 'curve.png'):
    shutil.copy(finished / name, tmp_path)
  before = contents(tmp_path)
  with pytest.raises(OSError) as error, disturbed.small_files(1000):
    report.curve(tmp_path, 'exact_match')
  assert error.value.errno == errno.EFBIG
  assert error.value.filename == str(tmp_path / 'curve.png')
  assert contents(tmp_path) == before


def test_a_full_disk_is_told_by_the_name_of_the_export(
  finished, tiny, tmp_path, contents
):
  """What writes weights and tokenizers raises errors of other kinds."""
  shutil.copytree(finished / 'student', tmp_path / 'student')
  run, before = build.build(checks.validate(tiny())), contents(tmp_path)
  for room in (100, 10_000, 20_000):  # beyond the config, then the weights
    with pytest.raises(OSError) as error, disturbed.small_files(room):
      report.export(run, tmp_path / 'student', run.student_params)
    assert error.value.errno == errno.EFBIG
    assert error.value.filename.startswith(str(tmp_path / 'student'))
    assert contents(tmp_path) == before


def test_transformers_loads_the_student_and_agrees(finished):
  torch = pytest.importorskip('torch')
  import transformers

  theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(
    finished / 'student'
  ).eval()
  tokenizer = transformers.AutoTokenizer.from_pretrained(finished / 'student')
  model, params = models.from_pretrained(finished / 'student')
  prompt = tokenizer(['a b c d', 'e f'], padding=True, return_tensors='np')
  response = np.array([[5, 6, 7], [8, 1, 0]])
  ours = models.logprobs(
    model,
    params,
    models.api.types.Prompt(
      prompt['input_ids'].astype(np.int32),
      prompt['attention_mask'].astype(bool),
    ),
    response.astype(np.int32),
  )
  with torch.no_grad():
    logits = theirs(
      input_ids=torch.tensor(prompt['input_ids']),
      attention_mask=torch.tensor(prompt['attention_mask']),
      labels=torch.tensor(response),
    ).logits
  expected = torch.log_softmax(logits, -1).gather(
    -1, torch.tensor(response)[..., None]
  )[..., 0]
  np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_student_before_and_after_are_compared_in_pairs(
  finished, tiny, tmp_path, capfd
):
  c = tiny(
    student__config={},
    student__path=str(finished / 'student'),
    steps=2,
    eval__every=0,
    checkpoint__export='last',
  )
  train.train(checks.validate(c), str(tmp_path))
  assert 'student after - student before' in capfd.readouterr().out
  results = json.loads((tmp_path / 'results.json').read_text())
  trained = json.loads((finished / 'results.json').read_text())
  assert results['student before']['forward_kl_gold'] == pytest.approx(
    trained['student after']['forward_kl_gold'], rel=1e-5
  )


def test_run_on_unlabelled_data_ends_without_a_table(finished, tiny, tmp_path):
  c = tiny(task__args__target=None, recipe={'name': 'on_policy_kd'})
  run = build.build(checks.validate(c))
  for name in ('metrics.jsonl', 'config.json'):
    shutil.copy(finished / name, tmp_path)
  with jax.set_mesh(run.mesh):
    report.finish(run, str(tmp_path), {'student': run.initial_params()})
  assert (tmp_path / 'student' / 'model.safetensors').exists()
  assert not (tmp_path / 'results.md').exists()


def test_a_signal_ends_an_evaluation_of_the_teacher_too(tiny):
  run = build.build(checks.validate(tiny()))
  validation = report.Validation(run)

  def calls(limit):
    """Evaluates until so many calls; returns how many there were."""
    made = []

    def check():
      made.append(1)
      if len(made) == limit:
        raise InterruptedError

    with contextlib.suppress(InterruptedError):
      validation(0, run.student_params, check)
    return len(made)

  assert calls(limit=4) == 4  # the student's two batches and scores, then this
  twice = calls(limit=99)
  assert twice == 2 * calls(limit=99)  # the teacher is scored once


def test_samples_stand_side_by_side_on_a_terminal(tiny, monkeypatch, caplog):
  run = build.build(checks.validate(tiny()))
  validation = report.Validation(run)
  monkeypatch.setattr('sys.stderr.isatty', lambda: True, raising=False)
  with caplog.at_level('INFO', 'kdjax'):
    scalars, samples = validation(3, run.initial_params())
  for label in ('prompt:', 'teacher:', 'student:', 'gold:'):
    assert label in samples and label in caplog.text
  assert 'step 3: exact_match' in caplog.text
  assert scalars['eval/exact_match_high'] >= scalars['eval/exact_match']
