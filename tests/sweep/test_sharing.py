"""Runs share what is compiled where they differ in numbers alone."""

import pytest

from kdjax import checks
from kdjax.sweep import names, sharing

STEPS = '--config.steps=100'


@pytest.fixture(autouse=True)
def root(monkeypatch):
  monkeypatch.chdir(names.__file__.rpartition('/kdjax/')[0])


def shares(*flags, config='configs/gkd_g2p.py'):
  views = [
    checks.validate(names.load([f'--config={config}', STEPS, *each.split()]))
    for each in flags
  ]
  return sharing.shares(dict(enumerate(views)))


def test_numbers_of_losses_and_temperatures_are_shared():
  beta, lam = '--config.recipe.beta=', '--config.recipe.lam='
  warm = '--config.sampling.temperature=0.5'
  cold = '--config.sampling.temperature=0'
  assert shares(beta + '0.1', beta + '0.9', warm, cold) == {0, 1, 2}
  # λ is how many rows are sampled, and so a program of its own.
  assert shares(lam + '0.5', lam + '1') == set()
  assert shares(f'{lam}0.5 {beta}0.1', f'{lam}1 {beta}0.1', f'{lam}1') == {1, 2}
  rate = '--config.optimizer.learning_rate='
  assert shares(rate + '1e-3', rate + '2e-3') == set()
  # With a term less it is another sum.
  weight = '--config.recipe.lm_weight='
  found = shares(
    *(weight + each for each in ('0', '0.5', '1')),
    config='configs/dpkd_dolly.py:embedded',
  )
  assert found == {1, 2}


def test_long_runs_compile_for_themselves():
  beta = ('--config.recipe.beta=0.1', '--config.recipe.beta=0.9')
  steps = f' --config.steps={sharing.STEPS + 1}'
  assert shares(*(each + steps for each in beta)) == set()
