"""Data: tasks, tokenizers, and batches of fixed shapes."""

from kdjax.data.examples import Examples
from kdjax.data.loading import load

__all__ = ['Examples', 'load']
