"""Terms and objectives: the one idea of kdjax as a data structure.

A distillation method is a weighted sum of expectations,

  L(θ) = Σ_k w_k · E_{x, y ~ source_k} [ loss_k(student_θ, teacher; x, y) ]

A `Term` is one summand. An `Objective` is the sum, and knows which responses
its terms need, how many of them the student must sample, which models judge
them, and how per-token values become one scalar.
"""

from kdjax.objective.draws import REST, SOURCES, Draw, assign, permutation
from kdjax.objective.hidden_readings import HiddenReading
from kdjax.objective.loss import Loss
from kdjax.objective.objectives import Objective
from kdjax.objective.readings import Reading, Target, View, label_logprobs
from kdjax.objective.reductions import count, reduce
from kdjax.objective.registry import LOSSES
from kdjax.objective.rewards import REWARDS, Evidence
from kdjax.objective.specs import Option, Spec
from kdjax.objective.terms import Term

__all__ = [
  'LOSSES',
  'REST',
  'REWARDS',
  'SOURCES',
  'Draw',
  'Evidence',
  'HiddenReading',
  'Loss',
  'Objective',
  'Option',
  'Reading',
  'Spec',
  'Target',
  'Term',
  'View',
  'assign',
  'count',
  'label_logprobs',
  'permutation',
  'reduce',
]
