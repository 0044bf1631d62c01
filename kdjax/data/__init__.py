"""Data: tasks, tokenizers, and batches of fixed shapes."""

# Modules with tasks are imported so that `tasks.get` knows these.
from kdjax.data import embedded, local
from kdjax.data.examples import Examples
from kdjax.data.loading import load

__all__ = ['Examples', 'embedded', 'load', 'local']
