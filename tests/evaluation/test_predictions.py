"""Files of texts match the examples, or say what doesn't."""

import json

import pytest

from kdjax.evaluation import predictions

IDS = ('a', 'b', 'c')


def write(path, text):
  path.write_text(text, encoding='utf-8')
  return path


def rows(path, *objects):
  return write(path, ''.join(json.dumps(each) + '\n' for each in objects))


def test_plain_text_has_a_response_a_line(tmp_path):
  for text in ('x y\n\n z\n', 'x y\r\n\r\n z\r\n', 'x y\n\n z'):
    path = write(tmp_path / 'said.txt', text)
    assert predictions.read(path, IDS) == ('x y', '', ' z')


def test_no_other_characters_end_a_line(tmp_path):
  path = write(tmp_path / 'said.txt', 'x\u2028y\x0cz\nb\nc\n')
  assert predictions.read(path, IDS) == ('x\u2028y\x0cz', 'b', 'c')


def test_rows_without_ids_are_in_order(tmp_path):
  path = rows(
    tmp_path / 'said.jsonl', *({'text': t} for t in ('x\ny', '', 'z'))
  )
  assert predictions.read(path, IDS) == ('x\ny', '', 'z')


def test_rows_with_ids_are_in_any_order_and_may_be_more(tmp_path):
  said = {'c': 'z', 'd': 'other', 'a': 'x', 'b': 'y'}
  objects = [{'id': k, 'text': v} for k, v in said.items()]
  path = rows(tmp_path / 'said.jsonl', *objects)
  assert predictions.read(path, IDS) == ('x', 'y', 'z')
  numbered = rows(
    tmp_path / 'numbered.jsonl', {'id': 1, 'text': 'y'}, {'id': 0, 'text': 'x'}
  )
  assert predictions.read(numbered, ('0', '1')) == ('x', 'y')


@pytest.mark.parametrize(
  ('name', 'text', 'expected'),
  [
    ('said.txt', 'x\ny\n', 'has 2 responses, and the split 3 examples'),
    ('said.txt', 'x\ny\n', 'eval.test_examples=2'),
    ('said.txt', 'x\ny\nz\n\n', 'has 4 responses'),
    ('said.jsonl', '{"text": "x"}\n', 'has 1 responses'),
    ('said.jsonl', '{"text": "x"\n', 'line 1 is not JSON'),
    ('said.jsonl', '"x"\n', "expected an object with a string 'text'"),
    ('said.jsonl', '{"text": 3}\n', "expected an object with a string 'text'"),
    (
      'said.jsonl',
      '{"text": "x", "id": "a"}\n{"text": "y"}\n',
      "1 of 2 lines have an 'id'",
    ),
    (
      'said.jsonl',
      '{"text": "x", "id": "a"}\n{"text": "y", "id": "a"}\n',
      "line 2: the id 'a' comes twice",
    ),
    (
      'said.jsonl',
      '{"text": "x", "id": "a"}\n{"text": "y", "id": "q"}\n',
      r"no response to 2 of 3 examples, such as \['b', 'c'\]",
    ),
  ],
)
def test_what_does_not_match_is_named(name, text, expected, tmp_path):
  path = write(tmp_path / name, text)
  with pytest.raises(ValueError, match=expected):
    predictions.read(path, IDS)


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(FileNotFoundError, match='eval.texts='):
    predictions.read(tmp_path / 'none.txt', IDS)
