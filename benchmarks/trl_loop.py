"""TRL's sides of `benchmarks.peers`: its trainers, held between two steps.

Of TRL's defaults these are changed, for equal work: gradient checkpointing off
(GKDTrainer would generate without a key-value cache), mixed precision off
unless bfloat16 is asked for, temperature 1, lambda 1, beta 0.5, weight decay 0
and a constant rate. Generation knows no end of sequence.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import datasets
import torch
import transformers
import trl
from trl.experimental import gkd as trl_gkd
from trl.models.utils import unwrap_model_for_generation

from benchmarks import shapes, torch_loop, workers


def gkd(
  station: workers.Station, shape: dict[str, Any], folder: str, dtype: str
) -> None:
  """Runs `GKDTrainer`."""
  Gkd(shapes.restore(shape), folder, dtype).train(station)


def distillation(
  station: workers.Station, shape: dict[str, Any], folder: str, dtype: str
) -> None:
  """Runs `DistillationTrainer`."""
  Distillation(shapes.restore(shape), folder, dtype).train(station)


class Side:
  """A trainer of TRL, and what the driver may ask of it."""

  name: str

  def __init__(self, shape: shapes.Shape, folder: str, dtype: str):
    torch_loop.use_all_cores()
    self.shape, self.folder = shape, pathlib.Path(folder)
    self.tokens = torch_loop.tokens(shape)
    self.trainer = self.make(
      model=torch_loop.load(shape, folder, 'student'),
      teacher_model=torch_loop.load(shape, folder, 'teacher'),
      processing_class=transformers.AutoTokenizer.from_pretrained(
        f'{folder}/student'
      ),
      options={
        'output_dir': f'{folder}/{self.name}',
        'per_device_train_batch_size': shape.batch,
        'activation_checkpointing': False,
        'bf16': dtype == 'bfloat16',
        'use_cpu': not torch.cuda.is_available(),
        'beta': 0.5,
        'temperature': 1.0,
        'learning_rate': 1e-5,
        'lr_scheduler_type': 'constant',
        'max_grad_norm': 1.0,
        'max_steps': 10**6,
        'logging_steps': 10,
        'save_strategy': 'no',
        'report_to': 'none',
        'disable_tqdm': True,
      },
    )

  def train(self, station: workers.Station) -> None:
    """Trains as `trainer.train()` does, holding before each step."""
    hold = lambda: station.hold(self.named(), torch_loop.wait)

    class Hold(transformers.TrainerCallback):
      """Holds between steps: fetching a batch and logging belong to a step."""

      def on_train_begin(self, *unused, **also):
        hold()

      def on_step_end(self, *unused, **also):
        hold()

    self.trainer.add_callback(Hold())
    self.trainer.train()

  def named(self) -> dict[str, Callable[[], Any]]:
    return {
      'generate': torch_loop.waiting(self.generate),
      'learn': torch_loop.waiting(self.learn),
      'check': self.check,
      'memory': workers.memory,
    }

  def backward(self) -> torch.Tensor:
    """Loss and gradients on given responses, as in the trainer's step."""
    trainer, model = self.trainer, self.trainer.model_wrapped
    model.train()
    with trainer.compute_loss_context_manager():
      loss = trainer.compute_loss(
        model, self.inputs(), num_items_in_batch=self.tokens[1].numel()
      )
    trainer.accelerator.backward(loss)
    return loss.detach()

  def learn(self) -> None:
    """Teacher, student, loss and gradient on given responses; no update."""
    self.backward()
    self.trainer.model.zero_grad()

  def check(self) -> dict[str, float]:
    """Returns loss and gradient norm on given responses; leaves logits."""
    models = {
      'student': self.trainer.model,
      'teacher': self.trainer.teacher_model,
    }
    torch_loop.save_logits(models, self.shape, self.folder / f'{self.name}.npz')
    loss = float(self.backward())
    norm = torch_loop.gradient_norm(self.trainer.model)
    tokens = self.shape.batch * self.length(self.generate())
    return {'loss': loss, 'gradient_norm': norm, 'tokens': tokens}

  def unwrapped(self) -> Any:
    """Returns what the trainers generate in."""
    return unwrap_model_for_generation(
      self.trainer.model_wrapped,
      self.trainer.accelerator,
      generation_kwargs=self.trainer.generation_kwargs,
    )

  def make(self, **given: Any) -> Any:
    raise NotImplementedError

  def inputs(self) -> dict[str, torch.Tensor]:
    raise NotImplementedError

  def generate(self) -> Any:
    raise NotImplementedError

  def length(self, generated: Any) -> int:
    """Returns how many tokens were generated a row."""
    raise NotImplementedError


class Gkd(Side):
  """`trl.experimental.gkd.GKDTrainer`, which holds all logits."""

  name = 'gkd'

  def make(self, options: dict[str, Any], **given: Any) -> Any:
    config = trl_gkd.GKDConfig(
      **options, lmbda=1.0, max_new_tokens=self.shape.response
    )
    rows = shapes.prompts(self.shape, 64 * self.shape.batch).tolist()
    data = datasets.Dataset.from_dict({'prompts': rows})
    return trl_gkd.GKDTrainer(
      args=config, train_dataset=data, data_collator=self.collate, **given
    )

  def collate(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Returns prompts, and labels that count as many tokens as are sampled."""
    prompts = torch.tensor([row['prompts'] for row in rows])
    return self.arrays(prompts, self.tokens[1].to(prompts.device))

  def arrays(
    self, prompts: torch.Tensor, responses: torch.Tensor
  ) -> dict[str, torch.Tensor]:
    both = torch.cat([prompts, responses], 1)
    labels = both.clone()
    labels[:, : prompts.shape[1]] = -100
    return {
      'prompts': prompts,
      'prompt_attention_mask': torch.ones_like(prompts),
      'input_ids': both,
      'attention_mask': torch.ones_like(both),
      'labels': labels,
    }

  def inputs(self) -> dict[str, torch.Tensor]:
    return self.arrays(*self.tokens)

  def generate(self) -> Any:
    with self.unwrapped() as model:
      return self.trainer.generate_on_policy_outputs(
        model, self.inputs(), self.trainer.generation_config
      )

  def length(self, generated: Any) -> int:
    return generated[0].shape[1] - self.shape.prompt


class Distillation(Side):
  """`trl.DistillationTrainer`, whose loss goes in chunks."""

  name = 'distillation'

  def make(self, options: dict[str, Any], **given: Any) -> Any:
    config = trl.DistillationConfig(
      **options,
      max_completion_length=self.shape.response,
      generation_kwargs={'eos_token_id': None},
    )
    data = datasets.load_dataset(
      'json',
      data_files=str(self.folder / 'prompts.jsonl'),
      split='train',
      cache_dir=str(self.folder / 'datasets'),
    )
    return trl.DistillationTrainer(args=config, train_dataset=data, **given)

  def inputs(self) -> dict[str, torch.Tensor]:
    prompts, responses = self.tokens
    return {
      'prompt_ids': prompts,
      'prompt_mask': torch.ones_like(prompts),
      'completion_ids': responses,
      'completion_mask': torch.ones_like(responses),
      'num_items_in_batch': torch.tensor(responses.numel()),
    }

  def generate(self) -> Any:
    ids = self.tokens[0].tolist()
    return self.trainer._generate_single_turn(ids, None, {})

  def length(self, generated: Any) -> int:
    # Cut at what would be the end, once in thousands of tokens.
    return max(map(len, generated))
