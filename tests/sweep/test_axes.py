"""What axes span."""

import pytest

from kdjax.sweep import axes


@pytest.mark.parametrize(
  ('text', 'values'),
  [
    ('lam=0,0.25,1', (0, 0.25, 1)),
    ('rate=1e-3,-2', (1e-3, -2)),
    ('name=adamw,sgd', ('adamw', 'sgd')),
    ('soft=true,false', (True, False)),
    ('path=runs/a.b', ('runs/a.b',)),
    ("metrics=('a','b'),('a',)", ("('a','b')", "('a',)")),
  ],
)
def test_an_axis_has_values_of_the_type_that_they_look_like(text, values):
  found = axes.Axis.parse(text).values
  assert found == values and list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
  'text', ['beta', 'beta=', '=1', '0=1', 'beta=1,1', 'be ta=1']
)
def test_what_is_no_axis_is_named(text):
  with pytest.raises(ValueError, match=f'--axis={text}: '):
    axes.Axis.parse(text)


def test_a_product_has_every_combination_once_and_none_without_axes():
  a, b = axes.Axis('a', (1, 2)), axes.Axis('b', (3, 4, 5))
  found = axes.product([{'m': 'x'}, {'m': 'y'}], [a, b])
  assert len(found) == 12 == len({tuple(each.items()) for each in found})
  assert found[0] == {'m': 'x', 'a': 1, 'b': 3}
  assert axes.product([{}], []) == [{}]
  with pytest.raises(ValueError, match=r"\['a'\] are given twice"):
    axes.product([{}], [a, a])
  with pytest.raises(ValueError, match=r"\['m'\] are given twice"):
    axes.product([{'m': 'x'}], [axes.Axis('m', ('z',))])


def test_a_config_file_adds_settings(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'def sweep(add, arg):\n'
    '  for rate in (1e-3, 1e-4):\n'
    "    add(**{'optimizer.learning_rate': rate}, task=arg)\n"
  )
  assert axes.of_config(f'{path}:g2p') == [
    {'optimizer.learning_rate': 1e-3, 'task': 'g2p'},
    {'optimizer.learning_rate': 1e-4, 'task': 'g2p'},
  ]
  path.write_text('def sweep(add):\n  add(beta=0.5)\n')
  assert axes.of_config(f'{path}:g2p') == [{'beta': 0.5}]
  path.write_text('def sweep(add):\n  pass\n')
  with pytest.raises(ValueError, match='adds no setting'):
    axes.of_config(str(path))
  path.write_text('')
  assert axes.of_config(str(path)) == [{}]
  with pytest.raises(FileNotFoundError, match='no file nowhere.py'):
    axes.of_config('nowhere.py:x')
