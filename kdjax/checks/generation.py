"""What `--mode=generate` can't write."""

from kdjax.config import Config


def problems(c: Config, mode: str) -> list[str]:
  """Returns what is wrong with the settings of `--mode=generate`."""
  g = c.generate
  if mode == 'generate' and g.top_logprobs and g.model != 'teacher':
    return [
      f'generate.top_logprobs={g.top_logprobs}: they are what losses read of '
      f'a teacher, but generate.model={g.model!r}; leave one of them out'
    ]
  return []
