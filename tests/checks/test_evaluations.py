"""What `--mode=evaluate` is asked for."""

from kdjax import checks


def test_analyses_are_checked_together(problems, tiny):
  c = tiny(
    teacher__config={},
    eval__analyses=('coverage', 'temperature', 'temperatures'),
    eval__samples_per_prompt=1,
    eval__temperatures=(0, 0.5),
    eval__length_edges=(5, 5),
  )
  found = problems(c, 'evaluate')
  assert "eval.analyses: unknown ['temperature']; known are" in found
  assert "'coverage' reads the teacher: give teacher.path" in found
  assert "samples_per_prompt=1: 'temperatures' compares the samples" in found
  assert 'eval.temperatures=(0.0, 0.5): all must be above 0' in found
  assert 'eval.length_edges=(5, 5): they must rise' in found
  assert 'eval.temperatures is empty' in problems(
    tiny(eval__analyses=('temperatures',), eval__temperatures=()), 'evaluate'
  )


def test_texts_are_scored_without_a_model(problems, tiny, tmp_path):
  path = tmp_path / 'said.txt'
  names = ('length_buckets', 'exposure_bias', 'answers')
  c = tiny(student__config={}, eval__texts=str(path), eval__analyses=names)
  found = problems(c, 'evaluate')
  assert f"eval.texts='{path}': there is no such file" in found
  assert "'exposure_bias' samples student and teacher, but eval.texts" in found
  assert "'answers' samples student, but eval.texts" in found
  assert 'length_buckets' not in found and 'student.path' not in found
  path.write_text('said')
  c.eval.analyses = ('length_buckets',)
  checks.validate(c, 'evaluate')
  for mode in ('train', 'generate'):
    found = problems(c, mode)
    assert f"eval.texts='{path}' is only for --mode=evaluate" in found
