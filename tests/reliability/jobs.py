"""Runs of all sources, long enough to be disturbed and over in seconds.

The config's argument: the data's folder, the source, and where a teacher's
responses are cached.
"""

import pathlib
import runpy

TINY = pathlib.Path(__file__).parents[1] / 'tiny.py'

SOURCES = {
  'data': {'name': 'sft'},
  'teacher': {'name': 'seqkd'},
  'student': {'name': 'gkd', 'lam': 0.5},
  'replay': {'name': 'distillm', 'student': 0.25, 'replay': 0.5},
  'pairs': {'name': 'dpkd'},
  'stale': {'name': 'llmr'},
}


def get_config(args: str):
  data, source, *cache = args.split(',')
  c = runpy.run_path(str(TINY))['get_config'](data)
  with c.unlocked():
    c.recipe = SOURCES[source]
  c.steps = 300
  c.log_every = 7  # checkpoints fall between two lines
  c.checkpoint.every = 10
  c.eval.every = 60
  if source in ('teacher', 'pairs'):
    c.task.teacher_responses = cache[0] if cache else 'online'
  if source == 'replay':
    c.replay_size = 16
  if source == 'stale':
    c.behaviour_sync = 3
    c.rollout_ahead = True
  return c
