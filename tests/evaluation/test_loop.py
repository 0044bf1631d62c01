"""The loop scores every example once, whatever its batch."""

import dataclasses

import jax
import numpy as np
import pytest

from kdjax import sampling, testing, types
from kdjax.evaluation import distribution, loop, text

N, V, T = 7, 6, 5


class Letters:
  """Ids 2 to 5 are the words a to d; 0 pads and 1 ends."""

  def decode(self, ids):
    return ' '.join('abcd'[i - 2] for i in ids if i > 1)


def _model(seed, **options):
  return testing.tabular(jax.random.key(seed), vocab_size=V, **options)


def _examples(batch_size, *, gold=True, teacher_prompts=False, count=N):
  """Batches of prompts and gold of varied lengths, the last one padded."""
  rng = np.random.default_rng(0)
  tokens = rng.integers(2, V, (count, 4)).astype(np.int32)
  mask = np.arange(4)[None] < rng.integers(1, 5, count)[:, None]
  said = rng.integers(2, V, (count, T)).astype(np.int32)
  lengths = rng.integers(1, T + 1, count)
  said[np.arange(count), lengths - 1] = 1
  real = np.arange(T)[None] < lengths[:, None]
  for start in range(0, count, batch_size):
    rows = np.arange(start, start + batch_size)
    valid = int((rows < count).sum())
    rows = np.minimum(rows, count - 1)
    prompt = types.Prompt(tokens[rows], mask[rows])
    other = types.Prompt(tokens[rows][:, ::-1], mask[rows][:, ::-1])
    yield (
      types.Batch(
        prompt=prompt,
        teacher_prompts=(other,) if teacher_prompts else None,
        responses={'data': types.Response(said[rows], real[rows])}
        if gold
        else {},
        example_id=rows.astype(np.int32),
        references=[[Letters().decode(said[i][real[i]]), 'a a'] for i in rows],
      ),
      valid,
    )


def _evaluator(model, **settings):
  return loop.Evaluator(
    **{
      'model': model,
      'vocabulary': Letters(),
      'max_new_tokens': T,
      'metrics': ('rouge1', 'exact_match'),
      'resamples': 50,
    }
    | settings
  )


def test_every_example_is_scored_once_and_padding_never():
  model, params = _model(0)
  evaluate = _evaluator(model)
  whole = evaluate(params, _examples(N))
  parts = evaluate(params, _examples(3))
  np.testing.assert_array_equal(parts.example_id, np.arange(N))
  assert parts.count == N
  for field in dataclasses.fields(loop.Result):
    if field.name not in ('scores', 'example_id'):
      one, other = (getattr(each, field.name) for each in (parts, whole))
      np.testing.assert_equal(one, other)


def test_predictions_are_the_greedy_responses():
  model, params = _model(0)
  result = _evaluator(model)(params, _examples(3))
  batch, _ = next(_examples(N))
  response = sampling.generate(
    model,
    params,
    batch.prompt,
    jax.random.key(9),
    max_new_tokens=T,
    temperature=0.0,
  )
  tokens, mask = np.asarray(response.tokens), np.asarray(response.mask)
  expected = [Letters().decode(tokens[i][mask[i]]) for i in range(N)]
  assert list(result.predictions) == expected
  assert result.inputs[0] == Letters().decode(
    batch.prompt.tokens[0][batch.prompt.mask[0]]
  )
  assert result.mean_length == pytest.approx(mask.sum() / N)
  ended = ((tokens == 1) & mask).any(-1)
  assert 0 < ended.mean() < 1  # so that the next line says something
  assert result.eos_fraction == pytest.approx(ended.mean())
  scores = text.score('rouge1', expected, result.references)
  assert result.metrics['rouge1'].value == scores.value


def test_sampling_has_a_temperature_of_its_own_and_ignores_batches():
  model, params = _model(0)
  sampled = _evaluator(model, temperature=1.0)
  result = sampled(params, _examples(3))
  assert result.predictions == sampled(params, _examples(N)).predictions
  assert (
    result.predictions != _evaluator(model)(params, _examples(3)).predictions
  )
  other = _evaluator(model, temperature=1.0, seed=1)(params, _examples(3))
  assert result.predictions != other.predictions


def test_beams_find_the_likelier_responses():
  model, params = _model(0)
  settings = {'length_penalty': 0.0}
  result = _evaluator(model, beams=3, generation=settings)(params, _examples(N))
  batch, _ = next(_examples(N))
  response, _ = sampling.beam_search(
    model, params, batch.prompt, beams=3, max_new_tokens=T, length_penalty=0.0
  )
  tokens, mask = np.asarray(response.tokens), np.asarray(response.mask)
  assert list(result.predictions) == [
    Letters().decode(tokens[i][mask[i]]) for i in range(N)
  ]
  assert (
    result.predictions != _evaluator(model)(params, _examples(N)).predictions
  )


def test_generation_settings_reach_the_sampler():
  model, params = _model(0)
  settings = {'eos_id': (2, 3), 'suppress_ids': (1,)}
  result = _evaluator(model, generation=settings)(params, _examples(N))
  last = [said.split()[-1] for said in result.predictions]
  assert result.eos_fraction == np.isin(last, ['a', 'b']).mean() > 0


def _divergences(settings=None, **examples):
  student, student_params = _model(0)
  teacher, teacher_params = _model(1)
  evaluate = _evaluator(student, teacher=teacher, **(settings or {}))
  result = evaluate(
    student_params, _examples(3, **examples), teacher_params=teacher_params
  )
  return result, (student, student_params, teacher, teacher_params)


def test_divergences_on_gold_and_student_prefixes_are_token_means():
  result, models = _divergences()
  batch, _ = next(_examples(N))
  response = sampling.generate(
    models[0],
    models[1],
    batch.prompt,
    jax.random.key(0),
    max_new_tokens=T,
    temperature=0.0,
  )
  for source, prefix in (
    ('gold', batch.responses['data']),
    ('student', response),
  ):
    expected = distribution.sequence_divergences(*models, batch.prompt, prefix)
    for name, (sums, counts) in expected.items():
      value, low, high = result.metrics[f'{name}_{source}']
      # Σ over all tokens / number of all tokens, never a mean of batch means.
      assert value == pytest.approx(float(sums.sum() / counts.sum()), rel=1e-5)
      assert 0 < low < value < high


def test_without_gold_only_student_prefixes_are_judged():
  result, _ = _divergences({'divergences': ('reverse_kl',)}, gold=False)
  assert set(result.metrics) == {'rouge1', 'exact_match', 'reverse_kl_student'}


def test_teacher_prompts_are_for_the_teacher():
  plain, _ = _divergences()
  other, _ = _divergences(teacher_prompts=True)
  assert other.predictions == plain.predictions
  assert other.metrics['forward_kl_gold'] != plain.metrics['forward_kl_gold']
  model, params = _model(1)
  as_teacher = _evaluator(model, role='teacher')
  assert (
    as_teacher(params, _examples(3, teacher_prompts=True)).predictions
    != as_teacher(params, _examples(3)).predictions
  )


def test_new_parameters_compile_nothing():
  model, first = _model(0)
  teacher, teacher_params = _model(1)
  second = model.init(jax.random.key(5))
  evaluate = _evaluator(model, teacher=teacher)
  before = evaluate(first, _examples(3), teacher_params=teacher_params)
  compiled = []

  def listen(event, *_, **__):
    if 'compile' in event:
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    after = evaluate(second, _examples(3), teacher_params=teacher_params)
    assert not compiled
    evaluate(second, _examples(2), teacher_params=teacher_params)
    assert compiled  # as other shapes do: the listener hears
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert after.predictions != before.predictions


def test_paired_difference_of_results():
  model, params = _model(0)
  evaluate = _evaluator(model)
  before = evaluate(params, _examples(3))
  after = evaluate(model.init(jax.random.key(5)), _examples(3))
  gains = loop.difference(before, after)
  assert gains['rouge1'].value == pytest.approx(
    after.metrics['rouge1'].value - before.metrics['rouge1'].value
  )
  assert loop.difference(before, before)['rouge1'] == (0, 0, 0)
  fewer = evaluate(params, _examples(3, count=5))
  with pytest.raises(ValueError, match='7 before, 5 after'):
    loop.difference(before, fewer)


def test_texts_of_a_baseline_are_scored_alike():
  model, params = _model(0)
  result = _evaluator(model)(params, _examples(3))
  again = loop.score_texts(
    result.predictions,
    result.references,
    ('rouge1', 'exact_match'),
    resamples=50,
  )
  assert again.metrics == result.metrics
  assert np.isnan(again.mean_length)
  assert 'length' not in again.scalars()


def test_metrics_may_read_the_prompts():
  inputs = ['a b c d e', 'a b c d']
  result = loop.score_texts(
    inputs, [(t,) for t in inputs], ('ibleu',), inputs=inputs
  )
  assert result.metrics['ibleu'].value == pytest.approx(80)


def test_scalars_are_flat():
  model, params = _model(0)
  result = _evaluator(model)(params, _examples(3))
  found = result.scalars()
  value, low, high = result.metrics['rouge1']
  assert (found['rouge1'], found['rouge1_low']) == (value, low)
  assert found['rouge1_high'] == high
  assert all(isinstance(number, float) for number in found.values())


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'metrics': ('rouge',)}, 'Unknown metrics'),
    ({'divergences': ('kl',)}, 'Unknown divergences'),
    ({'role': 'judge'}, "'judge'"),
    ({'beams': 0}, 'beams=0'),
    ({'beams': 4, 'temperature': 0.5}, 'beams=4 with temperature=0.5'),
  ],
)
def test_bad_settings_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    _evaluator(_model(0)[0], **settings)


def test_bad_calls_are_named():
  model, params = _model(0)
  with pytest.raises(ValueError, match='set is empty'):
    _evaluator(model)(params, [])
  with pytest.raises(ValueError, match='teacher twice'):
    _evaluator(model)(params, _examples(3), teacher_params=params)
  with pytest.raises(ValueError, match='teacher twice'):
    _evaluator(model, teacher=model)(params, _examples(3))
  batch, valid = next(_examples(3))
  batch = dataclasses.replace(batch, references=None)
  with pytest.raises(ValueError, match='no references'):
    _evaluator(model)(params, [(batch, valid)])
