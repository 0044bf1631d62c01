"""The memory check counts what an update holds, and names the way out."""

import pytest

from kdjax import memory, partitioning


def test_counts_parameters_gradients_and_moments(monkeypatch):
  mesh = partitioning.make_mesh()
  counts = {'student': 1000, 'teacher': 5000, 'reward': 0}
  # AdamW: 3 float32 arrays beside what trains, whatever the rest is stored in.
  stored, training = 4 * 1000 + 5000, 1000
  needed = stored + 4 * 3 * training
  monkeypatch.setattr(memory, '_capacity', lambda mesh: needed)
  memory.check(counts, stored, training, 'adamw', mesh)
  monkeypatch.setattr(memory, '_capacity', lambda mesh: needed - 1)
  with pytest.raises(ValueError, match=r':embedded') as error:
    memory.check(counts, stored, training, 'adamw', mesh)
  assert 'reward' not in str(error.value)
  memory.check(counts, stored, training, 'adafactor', mesh)
  memory.check(counts, stored, training - 1, 'adamw', mesh)


def test_names_both_sizes_and_the_ways_out():
  mesh = partitioning.make_mesh()
  counts = {'student': 77 * 10**12, 'teacher': 3 * 10**12}
  with pytest.raises(
    ValueError, match=r'77,000,000,000,000 student .* 5 train.*int8.*lora'
  ):
    memory.check(counts, 4 * 80 * 10**12, 5, 'adafactor', mesh)
