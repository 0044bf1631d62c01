"""What the torch sides of `benchmarks.peers` share, and one of their own.

For encoder-decoders TRL has no trainer: `run` is what one would write, with
transformers' models and generation.
"""

import itertools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks import shapes, workers


def device() -> torch.device:
  """Returns the GPU, or the CPU."""
  return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def use_all_cores() -> None:
  """Undoes what OMP_NUM_THREADS may have said: jax asks nobody either."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))


def wait() -> None:
  """Waits for the GPU, where there is one."""
  if torch.cuda.is_available():
    torch.cuda.synchronize()


def waiting(call: Callable[[], Any]) -> Callable[[], Any]:
  """Returns a call that waits for its results."""

  def run():
    found = call()
    wait()
    return found

  return run


def gauge() -> Any:
  """Returns the GPU's `memory.Gauge`, or None."""
  if not torch.cuda.is_available():
    return None
  return lambda: (
    torch.cuda.memory_allocated(),
    torch.cuda.max_memory_allocated(),
  )


def load(shape: shapes.Shape, folder: str, role: str) -> Any:
  """Returns a float32 model, as `shapes.save` wrote it.

  It knows no end of sequence, so that generation runs its length: to suppress
  one token costs transformers up to a millisecond a token at V = 50,257.
  """
  model = shapes.auto_class(shape).from_pretrained(
    f'{folder}/{role}', dtype=torch.float32
  )
  model.generation_config.eos_token_id = None
  return model.to(device())


def tokens(shape: shapes.Shape) -> tuple[torch.Tensor, torch.Tensor]:
  """Returns the first prompts and the given responses, [B, S] and [B, T]."""
  found = (
    shapes.prompts(shape, shape.batch),
    shapes.responses(shape, shape.batch),
  )
  return tuple(torch.from_numpy(x).long().to(device()) for x in found)


def jsd(
  student_logits: torch.Tensor, teacher_logits: torch.Tensor, beta: float
) -> torch.Tensor:
  """Generalised JSD of logits [..., V], a value a token; beta in (0, 1)."""
  q = torch.log_softmax(student_logits.float(), -1)
  p = torch.log_softmax(teacher_logits.float(), -1)
  log_beta = torch.tensor([beta, 1 - beta], device=p.device).log()
  m = torch.logaddexp(p + log_beta[0], q + log_beta[1])
  each = beta * p.exp() * (p - m) + (1 - beta) * q.exp() * (q - m)
  return each.sum(-1)


def response_logits(
  model: Any, prompt: torch.Tensor, response: torch.Tensor
) -> torch.Tensor:
  """Returns the logits [B, T, V] that predict a response, teacher-forced."""
  if model.config.is_encoder_decoder:
    start = model.config.decoder_start_token_id
    shifted = torch.nn.functional.pad(response[:, :-1], (1, 0), value=start)
    return model(
      input_ids=prompt,
      attention_mask=torch.ones_like(prompt),
      decoder_input_ids=shifted,
      use_cache=False,
    ).logits
  both = torch.cat([prompt, response], 1)
  logits = model(input_ids=both, use_cache=False).logits
  return logits[:, prompt.shape[1] - 1 : -1]


def save_logits(models: dict[str, Any], shape: shapes.Shape, path: Any) -> None:
  """Leaves the logits of two rows of given responses in a file."""
  prompt, response = tokens(shape)
  with torch.no_grad():
    logits = {
      role: response_logits(model, prompt[:2], response[:2]).float().cpu()
      for role, model in models.items()
    }
  np.savez(pathlib.Path(path), **{k: v.numpy() for k, v in logits.items()})


def gradient_norm(model: Any) -> float:
  """Returns the norm of the gradients, and drops them."""
  grads = [p.grad for p in model.parameters() if p.grad is not None]
  norm = float(torch.nn.utils.get_total_norm(grads))
  model.zero_grad()
  return norm


class Loop:
  """On-policy GKD in plain torch: what a step does, and its parts."""

  def __init__(self, shape: shapes.Shape, folder: str, dtype: str):
    self.shape, self.folder, self.dtype = shape, pathlib.Path(folder), dtype
    self.student = load(shape, folder, 'student').train()
    self.teacher = load(shape, folder, 'teacher').eval()
    self.optimizer = torch.optim.AdamW(
      self.student.parameters(), lr=1e-5, weight_decay=0.0, fused=True
    )
    self.prompt, self.response = tokens(shape)

  def named(self) -> dict[str, Callable[[], Any]]:
    return {
      'generate': waiting(lambda: self.generate(self.prompt)),
      'learn': waiting(self.learn),
      'check': self.check,
      'memory': workers.memory,
    }

  def batches(self) -> Iterator[torch.Tensor]:
    """Yields prompts [B, S], over and over."""
    rows = torch.from_numpy(shapes.prompts(self.shape, 64 * self.shape.batch))
    for batch in itertools.cycle(rows.long().split(self.shape.batch)):
      yield batch.to(device())

  def autocast(self) -> Any:
    return torch.autocast(
      device().type, torch.bfloat16, enabled=self.dtype == 'bfloat16'
    )

  @torch.no_grad()
  def generate(self, prompt: torch.Tensor) -> torch.Tensor:
    """Samples T tokens a row, with a key-value cache."""
    config = transformers.GenerationConfig(
      do_sample=True,
      top_k=0,
      temperature=1.0,
      max_new_tokens=self.shape.response,
      eos_token_id=None,
      pad_token_id=shapes.PAD,
      decoder_start_token_id=shapes.PAD,
    )
    with self.autocast():
      found = self.student.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        generation_config=config,
      )
    return found[:, -self.shape.response :]

  def loss(self, prompt: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """The mean JSD over a batch's tokens, and its gradients."""
    with self.autocast():
      with torch.no_grad():
        teacher = response_logits(self.teacher, prompt, response)
      student = response_logits(self.student, prompt, response)
      loss = jsd(student, teacher, 0.5).mean()
    loss.backward()
    return loss.detach()

  def learn(self) -> None:
    """Teacher, student, loss and gradient on given responses; no update."""
    self.loss(self.prompt, self.response)
    self.student.zero_grad()

  def step(self, prompt: torch.Tensor) -> torch.Tensor:
    """One step; returns the loss."""
    loss = self.loss(prompt, self.generate(prompt))
    torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
    self.optimizer.step()
    self.optimizer.zero_grad()
    return loss

  def check(self) -> dict[str, float]:
    """Returns loss and gradient norm on given responses; leaves logits."""
    models = {'student': self.student, 'teacher': self.teacher}
    with self.autocast():
      save_logits(models, self.shape, self.folder / 'torch.npz')
    loss = float(self.loss(self.prompt, self.response))
    return {
      'loss': loss,
      'gradient_norm': gradient_norm(self.student),
      'tokens': self.generate(self.prompt).numel(),
    }


def run(
  station: workers.Station, shape: dict[str, Any], folder: str, dtype: str
) -> None:
  """Trains on the shape in a folder that `shapes.save` wrote."""
  use_all_cores()
  loop = Loop(shapes.restore(shape), folder, dtype)
  for i, prompt in enumerate(loop.batches()):
    station.hold(loop.named(), wait)
    loss = loop.step(prompt)
    if i % 10 == 9:
      print(f'step {i}: {loss.item():.4f}')
