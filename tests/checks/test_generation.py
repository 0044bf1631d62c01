"""What `--mode=generate` can't write is said beforehand."""

import pytest

from kdjax import checks


def test_students_have_no_log_probabilities_to_learn_from(tiny):
  config = tiny(generate__top_logprobs=8)
  assert checks.validate(config, 'generate').generate.top_logprobs == 8
  config = tiny(generate__top_logprobs=8, generate__model='student')
  with pytest.raises(
    ValueError, match="top_logprobs=8: .*generate.model='student'"
  ):
    checks.validate(config, 'generate')
  # Whoever trains may have written both.
  checks.validate(config, 'train')


@pytest.mark.parametrize('value', [-1, 2.5, True, 'all'])
def test_impossible_numbers(value, tiny):
  with pytest.raises(ValueError, match='generate.top_logprobs'):
    checks.validate(tiny(generate__top_logprobs=value), 'generate')
