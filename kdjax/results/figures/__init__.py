"""Figures of sweeps: each function returns a matplotlib Figure."""

from kdjax.results.figures.decoding import exposure_bias, temperatures
from kdjax.results.figures.grids import heat_map
from kdjax.results.figures.rows import bars
from kdjax.results.figures.training import curves

__all__ = ['bars', 'curves', 'exposure_bias', 'heat_map', 'temperatures']
