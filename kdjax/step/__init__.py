"""One training step, as pure functions of arrays: rollout, score, learn.

  rollout: prompts -> responses, sampled by the student where a draw asks so
  recall:  earlier ones of the student's beside them, where a draw asks so
  score:   responses -> what frozen models and rewards say of them
  learn:   all of that -> gradients -> the next state

Each is jitted by `Program`. Sampled tokens visit the host only for a reward
that is a function over texts.
"""

from kdjax.step.auxiliary import auxiliary
from kdjax.step.learn import Scored, learn
from kdjax.step.program import Program
from kdjax.step.replay import Memory, memory, recall
from kdjax.step.rollout import rollout
from kdjax.step.score import score
from kdjax.step.settings import Settings
from kdjax.step.whole import policy, update

__all__ = [
  'Memory',
  'Program',
  'Scored',
  'Settings',
  'auxiliary',
  'learn',
  'memory',
  'policy',
  'recall',
  'rollout',
  'score',
  'update',
]
