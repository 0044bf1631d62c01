"""The counted work, against XLA's count and sizes worked by hand."""

import dataclasses

import jax
import pytest

from benchmarks import programs, roofline, shapes
from kdjax import models

FAMILIES = ('llama', 'gpt2', 't5')


def wide(family):
  """A shape whose matrix products dwarf its norms and softmaxes."""
  tower = shapes.Tower(2, 256, 2, 512)
  return dataclasses.replace(
    shapes.SHAPES[f'tiny-{family}'],
    student=tower,
    teacher=tower,
    vocabulary=512,
    prompt=16,
    response=16,
  )


def abstract(shape):
  """The student and the shapes of its parameters, batch and responses."""
  config = shapes.hf_config(shape, shape.student)
  model, params = models.from_config(config, jax.random.key(0))
  return model, params, programs.batch(shape).prompt, programs.response(shape)


@pytest.mark.parametrize('family', FAMILIES)
def test_forward_flops_are_what_xla_counts(family):
  shape = wide(family)
  model, params, prompt, response = abstract(shape)

  def run(params):
    hidden = model.hidden_states(params, prompt, response.tokens)
    return model.head(params, hidden)

  tokens = shape.batch * shape.response
  counted = roofline.forward(shape, shape.student) + roofline.head(
    shape.student, shape.vocabulary, tokens
  )
  analysis = jax.jit(run).lower(params).cost_analysis()
  # XLA counts norms, activations and masked scores as well.
  assert counted.flops == pytest.approx(analysis['flops'], rel=0.1)


@pytest.mark.parametrize('family', FAMILIES)
def test_parameters_are_the_models(family):
  shape = wide(family)
  _, params, *_ = abstract(shape)
  size = sum(x.size for x in jax.tree.leaves(params) if x.ndim > 1)
  if family == 'gpt2':
    size -= 1024 * shape.student.width  # positions are looked up
  found = roofline.optimizer(shape).bytes / (7 * roofline.PARAMETER)
  assert found == pytest.approx(size, rel=0.01)


def test_the_loss_is_five_products_of_the_wider_head():
  shape = shapes.SHAPES['gpt2']
  tokens, v = 512, 50257
  # Teacher once at 512 wide, student three times at 256.
  expected = 2 * tokens * v * (512 + 3 * 256)
  assert roofline.loss(shape).flops == expected


def test_generation_reads_all_weights_for_every_token():
  shape = shapes.SHAPES['llama']
  twice = dataclasses.replace(shape, response=2 * shape.response)
  one, two = (roofline.generate(each) for each in (shape, twice))
  weights = roofline.body('llama', shape.student)
  weights += shape.student.width * shape.vocabulary
  assert two.bytes - one.bytes > 4 * weights * shape.response
  bigger = dataclasses.replace(shape, batch=2 * shape.batch)
  ratio = roofline.generate(bigger).bytes / one.bytes
  assert 1 < ratio < 2  # only caches grow with the batch
  assert roofline.generate(bigger).flops == 2 * one.flops


def test_generation_is_a_forward_pass_a_token_at_a_time():
  for family in FAMILIES:
    shape = wide(family)
    whole = roofline.forward(shape, shape.student)
    tokens = shape.batch * shape.response
    heads = roofline.head(shape.student, shape.vocabulary, tokens)
    total = whole.flops + heads.flops
    assert roofline.generate(shape).flops == pytest.approx(total)


def test_columns_are_rates_and_shares():
  cost = roofline.Cost(2e9, 4e9)
  row = roofline.columns(cost, 2.0, roofline.Peaks(flops=4e9, bytes=8e9))
  assert row == {
    'GFLOP/s': 1.0,
    'of matmul': '25%',
    'GB/s': 2.0,
    'of stream': '25%',
  }
  assert (cost * 2 + cost).bytes == 12e9


def test_the_device_is_measured():
  peaks = roofline.measure(size=64, rounds=1)
  assert peaks.flops > 0 and peaks.bytes > 0
