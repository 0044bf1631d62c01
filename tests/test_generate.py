"""Tests of teacher responses: written in shards, and learned from."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from kdjax import build, checks, generate, train, types, workdirs
from kdjax.data import responses, vocabularies


@pytest.fixture(scope='module')
def teacher(finished, tiny):
  """Returns a function of overrides to a config whose teacher is trained."""

  def config(**overrides):
    return tiny(
      **{
        'teacher__config': {},
        'teacher__path': str(finished / 'student'),
        'generate__shard_size': 20,
        'generate__batch_size': 8,
        **overrides,
      }
    )

  return config


def write(config, workdir):
  generate.generate(checks.validate(config, 'generate'), str(workdir))


def kept(contents, workdir):
  """The digests of a cache's files; its writer's lock is none of them."""
  return {k: v for k, v in contents(workdir).items() if k != workdirs.LOCK}


def records(workdir):
  return [
    json.loads(line)
    for path in sorted(workdir.glob('responses-*.jsonl'))
    for line in path.read_text('utf-8').split('\n')
    if line
  ]


@pytest.fixture(scope='module')
def greedy(teacher, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('greedy')
  write(teacher(), workdir)
  return workdir


def test_every_example_has_a_response(greedy):
  found = records(greedy)
  assert len(list(greedy.glob('responses-*-of-00004.jsonl'))) == 4
  assert [r['id'] for r in found] == [str(i) for i in range(64)]
  assert all(1 <= len(r['tokens']) <= 6 for r in found)


def test_drafts_change_no_greedy_response(greedy, teacher, tmp_path):
  write(teacher(generate__draft_tokens=2), tmp_path)
  assert records(tmp_path) == records(greedy)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'generate__beams': 2}, "model='teacher' and generate.beams=1"),
    ({'student__config': {}}, 'neither student.path'),
  ],
)
def test_drafts_need_a_teacher_that_samples_and_a_student(
  teacher, overrides, message
):
  config = teacher(generate__draft_tokens=2, **overrides)
  with pytest.raises(ValueError, match=message):
    checks.validate(config, 'generate')


def test_interrupted_generation_goes_on(
  greedy, teacher, tmp_path, monkeypatch, contents
):
  written = []
  write_once = responses.Writer.write

  def interrupted(self, shard, *args):
    if len(written) == 2:
      raise KeyboardInterrupt
    written.append(shard)
    write_once(self, shard, *args)

  with monkeypatch.context() as patch:
    patch.setattr(responses.Writer, 'write', interrupted)
    with pytest.raises(KeyboardInterrupt):
      write(teacher(), tmp_path)
  half = kept(contents, tmp_path)
  assert len([n for n in half if n.endswith('.jsonl')]) == 2
  # Neither the batch size nor where it stopped changes a response.
  write(teacher(generate__batch_size=16), tmp_path)
  assert kept(contents, tmp_path) == kept(contents, greedy)


def test_other_settings_in_the_same_workdir_are_refused(
  greedy, teacher, contents
):
  before = kept(contents, greedy)
  with pytest.raises(
    ValueError, match=r'sampling.temperature \(there 0.0, here 1.0'
  ):
    write(teacher(generate__temperature=1.0), greedy)
  assert kept(contents, greedy) == before


def test_samples_differ_by_example_and_beams_are_searched(teacher, tmp_path):
  sampled, searched = tmp_path / 'sampled', tmp_path / 'searched'
  few = {'task__limit': 8, 'generate__batch_size': 4}
  write(teacher(generate__temperature=1.0, **few), sampled)
  write(teacher(generate__beams=2, **few), searched)
  # 24 to 48 draws at temperature 1 from a model that is far from certain.
  assert len({tuple(r['tokens']) for r in records(sampled)}) > 4
  assert len(records(searched)) == 8


@pytest.fixture(scope='module')
def ragged(tmp_path_factory):
  """A split whose prompts have from one to eight tokens, in no order."""
  folder = tmp_path_factory.mktemp('ragged')
  rng = np.random.default_rng(0)
  rows = []
  for length in rng.permutation(np.arange(32) % 7 + 1):
    word = ' '.join(rng.choice(list('abcdefgh'), length))
    rows.append({'spelling': word, 'sounds': 'AH B'})
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'train.jsonl').write_text(lines)
  return folder


@pytest.mark.parametrize('side', ['left', 'right'])
def test_alike_prompts_together_get_the_responses_of_all_in_order(
  side, ragged, teacher, tmp_path, monkeypatch
):
  config = teacher(
    task__args__path=f'{ragged}/{{split}}.jsonl',
    task__prompt_padding=side,
    generate__temperature=1.0,
    generate__shard_size=16,
    generate__batch_size=4,
  )
  widths = []
  trim = generate._trim

  def spy(*args, **options):
    widths.append(trim(*args, **options).mask.shape[1])
    return trim(*args, **options)

  with monkeypatch.context() as patch:
    patch.setattr(generate, '_trim', spy)
    write(config, tmp_path / 'sorted')
  assert len(widths) == 8
  assert set(widths) == {4, 8}
  with monkeypatch.context() as patch:
    patch.setattr(generate, '_trim', lambda prompt, left: prompt)
    patch.setattr(np, 'argsort', lambda lengths, kind: np.arange(lengths.size))
    write(config, tmp_path / 'plain')
  assert records(tmp_path / 'sorted') == records(tmp_path / 'plain')
  # Other rows' numbers would give others: the responses do differ.
  assert len({tuple(r['tokens']) for r in records(tmp_path / 'plain')}) > 8


@pytest.mark.parametrize('left', [False, True])
@pytest.mark.parametrize('longest', range(8))
def test_trimming_keeps_every_token(longest, left):
  real = np.arange(7) < np.array([[longest], [longest // 2]])
  mask = real[:, ::-1] if left else real
  kept = generate._trim(types.Prompt(mask.astype(int), mask), left)
  np.testing.assert_array_equal(kept.mask.sum(1), mask.sum(1))
  np.testing.assert_array_equal(kept.tokens, kept.mask)
  assert kept.mask.shape[1] == (4 if longest <= 4 else 7)


def test_seqkd_learns_from_the_responses(greedy, teacher, tmp_path):
  c = {
    'recipe': {'name': 'seqkd'},
    'task__teacher_responses': str(greedy),
    'steps': 30,
    'eval__every': 0,
    'checkpoint__export': 'last',
    'student__dropout': 0.0,
    'optimizer__learning_rate': 1e-2,
  }
  train.train(checks.validate(teacher(**c)), str(tmp_path))
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  losses = [json.loads(line)['loss/seqkd'] for line in lines]
  assert losses[-1] < losses[0] - 1
  assert 'rollout/length' not in json.loads(lines[0])


@pytest.fixture(scope='module')
def whole(teacher, tmp_path_factory):
  """Responses beside which the whole vocabulary stands."""
  workdir = tmp_path_factory.mktemp('whole')
  size = vocabularies.load('g2p').size
  write(
    teacher(generate__top_logprobs=size, generate__temperature=1.0), workdir
  )
  return workdir


def learn(teacher, workdir, **overrides):
  """The run that learns from a cache, and its first batch."""
  recipe = {'name': 'seqkd'}
  options = {'task__teacher_responses': str(workdir), **overrides}
  c = checks.validate(teacher(recipe=recipe, **options))
  run = build.build(c)
  return run, next(run.train_iterator())


def test_the_whole_vocabulary_is_what_the_live_teacher_gives(teacher, whole):
  run, batch = learn(teacher, whole)
  said = batch.responses['teacher']
  assert said.teacher is None
  params = run.teacher_params
  hidden = run.teacher.hidden_states(params, batch.prompt, said.tokens)
  head = run.teacher.output_head(params).first(run.vocabulary.size)
  live = np.asarray(jax.nn.log_softmax(head.logits(hidden)))
  for width in (6, 3):
    found = responses.attach_teacher(
      run.examples('train'),
      whole,
      max_response_tokens=width,
      vocabulary_size=run.vocabulary.size,
      logprobs=True,
    ).teacher_logprobs.pad(batch.example_id, width)
    assert found.ids.shape == (8, width, run.vocabulary.size)
    mask = said.mask[:, :width]
    named = np.take_along_axis(live[:, :width], found.ids, -1)
    np.testing.assert_allclose(found.logprobs[mask], named[mask], atol=2e-5)
    assert np.isneginf(found.tail[mask]).all()


def test_the_likeliest_tokens_leave_a_tail_and_change_no_response(
  whole, teacher, tmp_path, caplog
):
  with caplog.at_level('INFO', 'kdjax'):
    write(
      teacher(generate__top_logprobs=3, generate__temperature=1.0), tmp_path
    )
  assert records(tmp_path) == records(whole)
  (mass,) = re.findall(r'captured mass (0\.\d+) with k=3', caplog.text)
  options = {
    'max_response_tokens': 6,
    'vocabulary_size': vocabularies.load('g2p').size,
    'logprobs': True,
  }
  run, _ = learn(teacher, tmp_path)
  examples = run.examples('train')
  rows = np.arange(len(examples))
  some, every = (
    responses.attach_teacher(examples, folder, **options)
    for folder in (tmp_path, whole)
  )
  mask = some.teacher.pad(rows, 6, 0)[1]
  some, every = (x.teacher_logprobs.pad(rows, 6) for x in (some, every))
  np.testing.assert_array_equal(some.ids[mask], every.ids[mask][:, :3])
  rest = np.exp(every.logprobs[mask][:, 3:]).sum(-1)
  np.testing.assert_allclose(np.exp(some.tail[mask]), rest, rtol=1e-4)
  assert abs(1 - rest.mean() - float(mass)) < 1e-4


def test_another_teachers_responses_are_refused_or_accepted(
  greedy, teacher, tiny
):
  other = {'teacher__path': '', 'teacher__config': tiny().teacher.config}
  with pytest.raises(ValueError, match='another teacher.*config .*there'):
    learn(teacher, greedy, **other)
  _, batch = learn(teacher, greedy, task__accept_other_teacher=True, **other)
  assert 'teacher' in batch.responses


def test_responses_to_longer_prompts_are_refused(greedy, teacher):
  shorter = {'task__max_prompt_tokens': 3, 'task__on_long': 'truncate'}
  with pytest.raises(ValueError, match='another prompt') as error:
    learn(teacher, greedy, **shorter)
  for part in (
    'max_prompt_tokens (there 8, here 3)',
    "on_long (there 'error', here 'truncate')",
  ):
    assert part in str(error.value)


def test_a_copy_of_the_teacher_is_the_same_one(
  greedy, teacher, finished, tmp_path
):
  copied = shutil.copytree(finished / 'student', tmp_path / 'copy')
  learn(teacher, greedy, teacher__path=str(copied))
  path = copied / 'model.safetensors'
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r'weights \(there'):
    learn(teacher, greedy, teacher__path=str(copied))


def test_more_log_probabilities_than_tokens_are_refused(teacher, tmp_path):
  size = vocabularies.load('g2p').size
  with pytest.raises(ValueError, match=f'has {size} tokens'):
    write(teacher(generate__top_logprobs=size + 1), tmp_path)
  config = teacher(generate__top_logprobs=2, generate__model='student')
  with pytest.raises(ValueError, match="generate.model='student'"):
    checks.validate(config, 'generate')


def test_missing_responses_are_said(teacher, greedy, tmp_path):
  c = {'recipe': {'name': 'seqkd'}, 'task__teacher_responses': str(tmp_path)}
  with pytest.raises(FileNotFoundError, match='--mode=generate'):
    train.train(checks.validate(teacher(**c)), str(tmp_path / 'run'))
