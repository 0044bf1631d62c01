"""Promise 7: what isn't finite is skipped and told; losses are the same."""

import functools
import json
import logging
import pathlib
import re
import sys
import types as python_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from kdjax import (
  build,
  checks,
  feed,
  metrics,
  models,
  optimizers,
  recipes,
  report,
  rewards,
  state,
  step,
  train,
  types,
)
from kdjax.data import tasks, vocabularies
from tests.reliability.recipe_trees import GPT2, LLAMA, T5

B, S, T, V = 4, 5, 6, 24
SGD = optimizers.OptimizerConfig(name='sgd', learning_rate=1.0, clip_norm=None)
FAMILIES = {'t5': T5, 'gpt2': GPT2, 'llama': LLAMA}
ONE_LAYER = {
  't5': {'num_layers': 1},
  'gpt2': {'n_layer': 1},
  'llama': {'num_hidden_layers': 1},
}

# Of every kind of loss; by what each of its draws is given below.
RECIPES = {
  'cross-entropy': {'name': 'sft'},
  'divergence': {'name': 'word_kd', 'kd_weight': 0.5, 'temperature': 2.0},
  'divergence of sequences': {'name': 'gkd', 'lam': 1.0, 'beta': 0.9},
  'exact mixtures': {'name': 'f_distill', 'mixture': 'exact'},
  "the teacher's choice": {'name': 'imitkd', 'lam': 1.0},
  'energy': {'name': 'engine'},
  'policy gradient': {
    'name': 'reinforce',
    'reward': 'teacher_logprob',
    'baseline': 'mean',
    'importance': True,
    'kl_weight': 0.1,
  },
  'groups': {'name': 'grpo', 'reward': 'teacher_mean_logprob'},
  'reverse KL of sequences': {'name': 'minillm', 'lm_weight': 0.0},
  'induced rewards': {'name': 'llmr', 'finished_only': False},
  'preferences': {'name': 'dpkd'},
  'preferences near a reference': {'name': 'dpo'},
  'ranked samples': {'name': 'ranking'},
  'hidden states': {
    'name': 'layer_matching',
    'stacks': ('decoder',),
    'kind': 'hidden',
  },
  'attention maps': {
    'name': 'layer_matching',
    'stacks': ('decoder',),
    'kind': 'attention',
  },
  'encoders': {
    'name': 'layer_matching',
    'stacks': ('encoder', 'decoder'),
    'kind': 'cosine',
  },
  'cross-attention maps': {'name': 'layer_matching', 'kind': 'cross_attention'},
  'encoder attention maps': {
    'name': 'layer_matching',
    'stacks': ('encoder',),
    'kind': 'attention',
  },
  'reward regression': {
    'name': 'reward_regression',
    'source': 'data',
    'reward': 'teacher_logprob',
  },
  'preference rewards': {'name': 'preference_reward'},
}
ENCODERS = ('encoders', 'cross-attention maps', 'encoder attention maps')


@functools.cache
def model(family, seed):
  sizes = {'vocab_size': V, 'eos_token_id': 1, 'pad_token_id': 0}
  config = {**sizes, **FAMILIES[family], **ONE_LAYER[family]}
  return models.from_config(config, jax.random.key(seed), dropout=0.0)


def response(rng, rows):
  lengths = rng.integers(1, T + 1, rows)
  mask = np.arange(T) < lengths[:, None]
  return types.Response(
    rng.integers(2, V, (rows, T)),
    mask,
    np.where(mask, -rng.exponential(size=(rows, T)), 0).astype(np.float32),
  )


@functools.cache
def program(name, family, micro):
  """The step of a recipe, and what each of its draws is given."""
  args = dict(RECIPES[name])
  goal = recipes.build(args.pop('name'), **args)
  group = 2 if any(term.compares_samples for term in goal.terms) else 1
  student, _ = model(family, 0)
  teacher, _ = model(family, 1)
  settings = step.Settings(
    student=student,
    teacher=teacher,
    objective=goal,
    optimizer=optimizers.build(SGD),
    max_new_tokens=T,
    sampling={'samples_per_prompt': group},
    micro_batch=micro,
  )

  @jax.jit
  def run(start, frozen, batch, responses):
    before = state.create(start, settings.optimizer, seed=0)
    judged = ({},) * len(responses)
    read = start['student'], frozen, batch, responses, judged, before.step
    scored, _ = step.score(settings, *read)
    parts = settings.micro_batches(batch)
    after, found = step.learn(
      settings, before, frozen['teacher'], scored, parts
    )
    gradient = jax.tree.map(jnp.subtract, start, after.params)
    return found['loss'][0], gradient

  return settings, group, run


@functools.cache
def given(name, family):
  """A batch, and the responses of each draw, on the host."""
  settings, group, _ = program(name, family, None)
  rng = np.random.default_rng(0)
  lengths = np.array([S, 1, 3, 2])
  mask = np.arange(S) < lengths[:, None]
  batch = types.Batch(
    types.Prompt(rng.integers(2, V, (B, S)), mask),
    example_id=np.arange(B, dtype=np.int32),
  )
  draws = settings.objective.draws()
  groups = [group if draw.sampled == 'student' else 1 for draw in draws]
  return batch, tuple(response(rng, B * each) for each in groups)


def pad(x, left, right):
  """Rows with junk under a mask that says so, on either side."""
  tokens = np.pad(x.tokens, ((0, 0), (left, right)), constant_values=V - 1)
  more = {'mask': np.pad(x.mask, ((0, 0), (left, right))), 'tokens': tokens}
  if isinstance(x, types.Prompt):
    return types.Prompt(**more)
  logprobs = np.pad(x.sampling_logprobs, ((0, 0), (left, right)))
  return types.Response(**more, sampling_logprobs=logprobs)


def arranged(batch, responses, order, left, right, after):
  """The same rows in another order, with other padding."""
  prompt = jax.tree.map(lambda x: x[order], batch.prompt)
  moved = types.Batch(
    pad(prompt, left, right), example_id=batch.example_id[order]
  )

  def rows(x):
    group = len(x.tokens) // B
    chosen = (np.asarray(order)[:, None] * group + np.arange(group)).ravel()
    return pad(jax.tree.map(lambda y: y[chosen], x), 0, after)

  return moved, tuple(map(rows, responses))


def learned(name, family, batch, responses, micro):
  """The loss and the gradient of one step on given responses."""
  settings, _, run = program(name, family, micro)
  (student, params), (teacher, fixed) = model(family, 0), model(family, 1)
  frozen = {'teacher': fixed, 'reference': model(family, 2)[1]}
  pair = {'student': (student, params), 'teacher': (teacher, fixed)}
  own = step.auxiliary(settings.objective, pair, jax.random.key(3))
  keep = 'samples' in settings.objective.needs()
  responses = tuple(
    types.Response(r.tokens, r.mask, r.sampling_logprobs if keep else None)
    for r in responses
  )
  start = {'student': params, **own}
  return jax.device_get(run(start, frozen, batch, responses))


def assert_same(found, expected):
  """Within what float32 sums of some thousand numbers lose by their order.

  A sum of n terms in another order differs by some sqrt(n) units of the last
  place of the largest partial sum: 1e-5 of the loss; and of a gradient's
  largest component, through which two models' worth of them go, 1e-4.
  """
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
  leaves = jax.tree.leaves(expected[1])
  scale = max(np.max(np.abs(leaf)) for leaf in leaves)
  assert scale > 0
  for a, b in zip(jax.tree.leaves(found[1]), leaves, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * scale)


CASES = [
  (name, family)
  for name in RECIPES
  for family in FAMILIES
  if family == 't5' or name not in ENCODERS
]
# Every kind of loss and every family; `--full` tries all of them.
QUICK = {('divergence of sequences', 't5')}
SLOW = {
  ('policy gradient', 'llama'),
  ('cross-entropy', 'gpt2'),
  ('exact mixtures', 't5'),
  ('groups', 'gpt2'),
  ('preferences', 'llama'),
  ('ranked samples', 't5'),
  ('hidden states', 'gpt2'),
  ('encoder attention maps', 't5'),
  ('reward regression', 'llama'),
}
PADDINGS = ((3, 0, 0), (0, 2, 2), (1, 1, 3), (0, 0, 0))


@pytest.mark.parametrize(
  'name, family',
  [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in CASES
  ],
)
def test_neither_position_nor_padding_nor_micro_batches_matter(
  name, family, full, fuzz
):
  if not full and (name, family) not in QUICK | SLOW:
    pytest.skip('another of its kind is tried; all: --full')
  batch, responses = given(name, family)
  expected = learned(name, family, batch, responses, None)

  def check(order, padding, micro):
    changed = arranged(batch, responses, list(order), *padding)
    assert_same(learned(name, family, *changed, micro), expected)

  # Each padding is a program of its own.
  which = PADDINGS if full else PADDINGS[len(name) % 2 :][:1]
  fuzz(
    7,
    'orders, paddings and micro-batches',
    check,
    st.permutations(range(B)),
    st.sampled_from(which),
    st.sampled_from([1, 2, None] if full else [2]),
    quick=4,
    often=4,
  )


# What isn't finite, in whole runs.


def settings_of(recipe, **changes):
  """What makes of the tiny config one epoch of 8 steps, and nothing else."""
  return {
    'recipe': recipe,
    'steps': 8,
    'log_every': 2,
    'eval__every': 0,
    'eval__test_examples': 2,
    'eval__browse': 0,
    'checkpoint__export': 'last',
    'checkpoint__every': 8,
    **changes,
  }


@pytest.fixture
def judge(monkeypatch):
  """Makes a reward of the caller's; returns the recipe that maximises it."""

  def make(reward):
    module = python_types.ModuleType('rewards_of_ours')
    module.ours = reward
    monkeypatch.setitem(sys.modules, 'rewards_of_ours', module)
    return {
      'name': 'reinforce',
      'reward': 'rewards_of_ours:ours',
      'baseline': 'none',
    }

  return make


def row_of(config, example):
  """Returns a row of the training file."""
  path = config.task.args['path'].replace('{split}', 'train')
  return json.loads(pathlib.Path(path).read_text().splitlines()[example])


@pytest.mark.slow
def test_a_reward_over_texts_names_the_example(tiny, tmp_path, judge, tried):
  seen = []

  def reward(prompts, responses, references):
    seen.append(prompts)
    values = np.ones(len(prompts))
    if len(seen) == 3:
      values[-1] = np.inf
    return values

  config = checks.validate(tiny(**settings_of(judge(reward))))
  with pytest.raises(ValueError) as error:
    train.train(config, str(tmp_path))
  message = str(error.value)
  named = re.search(r"'rewards_of_ours:ours' is inf for example (\d+)", message)
  spelled = row_of(config, int(named.group(1)))['spelling']
  assert seen[2][-1] == spelled and repr(spelled) in message
  tried(7, 'rewards that are not finite', 1)


@pytest.mark.slow
def test_a_traced_reward_is_skipped_and_names_the_example(
  tiny, tmp_path, judge, caplog, tried
):
  """It is only known once the step is done."""
  plain = checks.validate(tiny())
  task = tasks.get(plain.task.name, **plain.task.args)
  vocabulary = vocabularies.load(plain.task.vocabulary)
  examples = feed.examples(plain.task, task, 'train', vocabulary)
  tokens = np.asarray(examples.prompts[17])

  def reward(prompt, response):
    start = prompt.tokens[:, : len(tokens)]
    return jnp.where((start == tokens).all(-1), jnp.nan, 1.0)

  recipe = judge(rewards.Traced(reward))
  config = checks.validate(tiny(**settings_of(recipe)))
  caplog.set_level(logging.WARNING)
  train.train(config, str(tmp_path))
  said = [x for x in caplog.messages if 'not finite for example' in x]
  assert len(said) == 1 and said[0].endswith(
    "'rewards_of_ours:ours' is not finite for example 17 of the training split"
  )
  lines = [x for x in metrics.read(tmp_path) if 'skipped' in x]
  assert lines[-1]['skipped'] == 1 and lines[-1]['consecutive_skipped'] == 0
  assert all(np.isfinite(x['loss']) for x in lines)
  last = 'step 8: 1 updates so far were not finite and were skipped'
  assert last in caplog.messages
  tried(7, 'rewards that are not finite', 1)


@pytest.mark.slow
def test_skipped_updates_leave_the_student_as_it_was(
  tiny, tmp_path, judge, tried
):
  def reward(prompt, response):
    # Finite on the few rows that the run rehearses with.
    bad = jnp.inf if len(prompt.tokens) == 8 else 1.0
    return jnp.full(len(response.tokens), bad)

  changes = settings_of(judge(rewards.Traced(reward)), steps=5)
  config = checks.validate(tiny(**changes))
  train.train(config, str(tmp_path / 'run'))
  run = build.build(config)
  report.export(run, tmp_path / 'before', run.student_params)
  name = 'model.safetensors'
  before = safetensors.numpy.load_file(tmp_path / 'before' / name)
  after = safetensors.numpy.load_file(tmp_path / 'run' / 'student' / name)
  jax.tree.map(np.testing.assert_array_equal, after, before)
  lines = [x for x in metrics.read(tmp_path / 'run') if 'skipped' in x]
  assert lines[-1]['skipped'] == 5
  stopped = checks.validate(tiny(**{**changes, 'max_skipped': 3}))
  with pytest.raises(FloatingPointError, match='3 consecutive updates up to'):
    train.train(stopped, str(tmp_path / 'stopped'))
  tried(7, 'updates that are not finite', 8)
