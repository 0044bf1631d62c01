"""Topologies: those that exist, and how others are refused."""

import re

import pytest

from kdjax.plan import chips

pytest.importorskip('libtpu')


@pytest.mark.parametrize(
  ('name', 'count'),
  [
    ('v4:2x2x1', 4),
    ('v5e:1x1', 1),
    ('v5e:4x4', 16),
    ('v5p:2x2x2', 8),
    ('v6e:2x4', 8),
  ],
)
def test_one_device_a_chip(name, count):
  chip, devices = chips.devices(name)
  assert len(devices) == count == chips.chips_of(name.split(':')[1])
  assert len({tuple(device.coords) for device in devices}) == count
  assert chip.name == name.split(':')[0]


@pytest.mark.parametrize('chip', chips.CHIPS.values(), ids=lambda c: c.name)
def test_smaller_slices_of_every_generation_exist(chip):
  for shape in chip.shapes:
    if chips.chips_of(shape) <= 64:
      found = chips.devices(f'{chip.name}:{shape}')[1]
      assert len(found) == chips.chips_of(shape)


@pytest.mark.parametrize('chip', chips.CHIPS.values(), ids=lambda c: c.name)
def test_memory_is_what_the_compiler_has(chip):
  """A program that asks for a little more is refused, with that number."""
  import jax
  import jax.numpy as jnp
  from jax.sharding import SingleDeviceSharding

  device = chips.devices(f'{chip.name}:{chip.shapes[0]}')[1][0]
  whole = jax.ShapeDtypeStruct(
    (int(chip.hbm // 4), 4), jnp.int8, sharding=SingleDeviceSharding(device)
  )
  with pytest.raises(jax.errors.JaxRuntimeError) as error:
    jax.jit(lambda x: x + 1).lower(whole).compile()
  found = re.search(r'available HBM \(([\d.]+)G\)', str(error.value))
  # Releases of libtpu differ by a hundredth.
  assert float(found.group(1)) == pytest.approx(chip.hbm / chips.GIB, abs=0.02)


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('v9:4x4', ["unknown TPU 'v9'", "['v4', 'v5e', 'v5p', 'v6e']", 'v5e:4x4']),
    ('v5e', ["no slice ''", '1x1, 2x2']),
    ('v5e:3x5', ["no slice '3x5'", '4x4']),
    ('v5e:4x2', ["no slice '4x2'", '2x4']),
    ('v5p:4x4', ["no slice '4x4'", '2x2x4']),
  ],
)
def test_unknown_topologies_name_those_that_exist(name, words):
  with pytest.raises(ValueError, match='--topology') as error:
    chips.find(name)
  assert all(word in str(error.value) for word in words)


def test_devices_to_count_with_are_as_many_as_asked_for():
  for count in (1, 2, 8, 128):
    assert len(chips.like('v5p', count)) == count
