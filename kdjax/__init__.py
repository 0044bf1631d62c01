"""kdjax: distilling language models in JAX.

Import what you need: `from kdjax import losses, sampling, models`. Nothing is
imported here, so that `import kdjax` costs nothing.
"""

__version__ = '0.1.0'
