"""What isn't JSON is named by its file and line."""

import math

import pytest

from kdjax.results import reading


@pytest.fixture
def file(tmp_path):
  def write(text):
    path = tmp_path / 'file.json'
    path.write_text(text)
    return path

  return write


def test_a_broken_file_is_named_with_its_line(file):
  path = file('{\n  "a": 1,\n  "b": \n}\n')
  with pytest.raises(ValueError, match=r'file\.json, line 4: not JSON'):
    reading.read(path)


def test_a_broken_line_is_named(file):
  path = file('{"step": 0}\n{"step": \n{"step": 2}\n')
  with pytest.raises(ValueError, match=r'file\.json, line 2: not JSON'):
    reading.read_lines(path, growing=True)


def test_a_line_that_is_no_object_is_named(file):
  with pytest.raises(ValueError, match=r'line 1: expected a JSON object.*\[1'):
    reading.read_lines(file('[1, 2]\n'))


def test_a_last_line_may_be_unfinished_only_while_a_run_writes(file):
  path = file('{"step": 0}\n{"st')
  assert reading.read_lines(path, growing=True) == [{'step': 0}]
  with pytest.raises(ValueError, match='line 2'):
    reading.read_lines(path)


def test_a_last_line_without_an_end_is_read(file):
  assert reading.read_lines(file('{"a": 1}\n{"a": 2}'))[-1] == {'a': 2}


def test_null_is_nan_and_infinity_stays(file):
  found = reading.read_scores(file('{"teacher": {"a": null, "b": Infinity}}'))
  assert math.isnan(found['teacher']['a'])
  assert found['teacher']['b'] == math.inf


@pytest.mark.parametrize('text', ['[]', '{"teacher": 1}'])
def test_scores_are_by_system(file, text):
  with pytest.raises(ValueError, match='expected an object of numbers'):
    reading.read_scores(file(text))


@pytest.mark.parametrize('value', ['"12"', 'true', '[1]'])
def test_a_score_is_a_number(file, value):
  with pytest.raises(ValueError, match='rouge2 of .teacher. is'):
    reading.read_scores(file(f'{{"teacher": {{"rouge2": {value}}}}}'))
