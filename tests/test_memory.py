"""The memory check counts what an update holds, and names the way out."""

import pytest

from kdjax import memory, partitioning


def test_counts_parameters_gradients_and_moments(monkeypatch):
  mesh = partitioning.make_mesh()
  # AdamW: 4 student-sized arrays of float32, and the teacher's one.
  needed = 4 * (4 * 1000 + 5000)
  monkeypatch.setattr(memory, '_capacity', lambda mesh: needed)
  memory.check(1000, 5000, 'adamw', mesh)
  monkeypatch.setattr(memory, '_capacity', lambda mesh: needed - 1)
  with pytest.raises(ValueError, match=r':embedded'):
    memory.check(1000, 5000, 'adamw', mesh)
  memory.check(1000, 5000, 'adafactor', mesh)


def test_names_both_sizes():
  mesh = partitioning.make_mesh()
  with pytest.raises(ValueError, match=r'77,000,000,000,000 student'):
    memory.check(77 * 10**12, 3 * 10**12, 'adafactor', mesh)
