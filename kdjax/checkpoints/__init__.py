"""Checkpoints: everything that touches orbax."""

from kdjax.checkpoints.arrays import abstract
from kdjax.checkpoints.store import Checkpoints

__all__ = ['Checkpoints', 'abstract']
