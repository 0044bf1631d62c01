"""Both sides of a comparison load the same files and compute the same."""

import os

os.environ['HF_HUB_OFFLINE'] = '1'

import jax
import numpy as np
import optax
import pytest

from benchmarks import peers, programs, shapes
from kdjax import models

FAMILIES = ('llama', 'gpt2', 't5')


@pytest.fixture(scope='module', params=FAMILIES)
def saved(request, tmp_path_factory):
  pytest.importorskip('torch')  # which makes the weights
  shape = shapes.SHAPES[f'tiny-{request.param}']
  folder = tmp_path_factory.mktemp(request.param)
  shapes.save(shape, folder, batches=2)
  return shape, folder


@pytest.fixture(scope='module')
def theirs(saved):
  """The plain torch loop: what it says, and its logits."""
  torch = pytest.importorskip('torch')
  from benchmarks import torch_loop

  threads = torch.get_num_threads()
  loop = torch_loop.Loop(saved[0], str(saved[1]), 'float32')
  found = loop.check()
  torch.set_num_threads(threads)
  return loop, found, dict(np.load(saved[1] / 'torch.npz'))


def test_loss_gradient_and_logits_are_torchs(saved, theirs):
  shape, folder = saved
  _, found, logits = theirs
  loaded = {
    role: models.from_pretrained(folder / role)
    for role in ('student', 'teacher')
  }
  parts = programs.make(shape, loaded, optimizer=optax.set_to_zero())
  said, ours = programs.response(shape), {}
  for role, (model, params) in loaded.items():

    @jax.jit
    def run(params, model=model):
      prompt = parts.batch.prompt
      hidden = model.hidden_states(params, prompt, said.tokens)
      return model.head(params, hidden)

    ours[role] = np.asarray(run(params))[:2]
  scored, _ = parts.program.score(
    parts.state, parts.frozen, parts.batch, (said,)
  )
  _, metrics = parts.program.learn(parts.state, parts.frozen, scored)
  metrics = jax.device_get(metrics)
  values = {
    'loss': float(metrics['loss/gkd'][0] / metrics['loss/gkd'][1]),
    'gradient_norm': float(metrics['gradient_norm'][0]),
    'tokens': shape.batch * shape.response,
  }
  apart = peers.check(
    {peers.OURS: values, 'transformers': found},
    {peers.OURS: ours, 'transformers': logits},
    peers.TOLERANCES['float32'],
  )
  assert set(apart) == {'transformers'}


@pytest.mark.slow
def test_the_torch_loop_steps_and_never_ends_early(saved, theirs):
  shape, _ = saved
  loop, *_ = theirs
  prompt = next(loop.batches())
  response = loop.generate(prompt)
  assert response.shape == (shape.batch, shape.response)
  before = [p.clone() for p in loop.student.parameters()]
  assert loop.step(prompt) > 0
  after = loop.student.parameters()
  assert any((a != b).any() for a, b in zip(before, after))


def test_the_tokenizer_reads_the_prompts_back(saved):
  from kdjax.data import vocabularies

  shape, folder = saved
  words = vocabularies.load(str(folder / 'student'))
  tokens = shapes.prompts(shape, 3)
  assert [words.encode(shapes.text(row)) for row in tokens] == tokens.tolist()
  assert (words.size, words.eos_id) == (shape.vocabulary, shapes.EOS)
  assert not words.prompt_prefix and not words.prompt_suffix


def test_unequal_work_is_refused():
  ours = {'loss': 1.0, 'gradient_norm': 1.0, 'tokens': 512}
  logits = {role: np.zeros(3) for role in ('student', 'teacher')}
  both = {peers.OURS: logits, 'other': logits}
  bounds = peers.TOLERANCES['float32']
  found = {peers.OURS: ours, 'other': {**ours, 'loss': 1.00005}}
  assert peers.check(found, both, bounds)['other']['logits'] == 0
  for wrong in (1.001, float('nan')):
    found['other'] = {**ours, 'loss': wrong}
    with pytest.raises(peers.Unequal, match='other and kdjax differ'):
      peers.check(found, both, bounds)
  found['other'] = {**ours, 'tokens': 511}
  with pytest.raises(peers.Unequal, match='tokens'):
    peers.check(found, both, bounds)
  off = {**logits, 'teacher': np.full(3, 0.01)}
  with pytest.raises(peers.Unequal, match='logits'):
    peers.check(
      {peers.OURS: ours, 'other': ours}, {**both, 'other': off}, bounds
    )
