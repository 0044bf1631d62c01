"""Sweeps that were run: tables, intervals, figures, and which setting is best.

from kdjax import results
sweep = results.load('runs/sweep')
print(sweep.best('rouge2'))
results.figures.heat_map(sweep, 'rouge2')
"""

from kdjax.results import figures
from kdjax.results.sweep import Best, Results, Setting, load
from kdjax.results.writing import write

__all__ = ['Best', 'Results', 'Setting', 'figures', 'load', 'write']
