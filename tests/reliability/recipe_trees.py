"""Configs that could run: tiny models, and settings of the right types.

Many still don't fit together; those that do must make a step.
"""

import inspect

from hypothesis import strategies as st

from kdjax.losses import DIVERGENCES, STRATEGIES
from kdjax.objective import LOSSES, REWARDS, Spec
from kdjax.objective.policy import BASELINES
from kdjax.recipes import RECIPES

_one = st.sampled_from

GPT2 = {
  'model_type': 'gpt2',
  'n_embd': 16,
  'n_head': 2,
  'n_layer': 2,
  'n_positions': 64,
}
LLAMA = {
  'model_type': 'llama',
  'hidden_size': 16,
  'intermediate_size': 32,
  'num_hidden_layers': 2,
  'num_attention_heads': 2,
}
T5 = {
  'model_type': 't5',
  'd_model': 16,
  'd_kv': 8,
  'd_ff': 32,
  'num_heads': 2,
  'num_layers': 2,
}
RISING = {'kind': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 10}
TEXT_REWARDS = ('brevity', 'rougeL', 'exact_match')

_SETTINGS = {
  'student.config': _one([T5, GPT2, LLAMA]),
  'student.dtype': _one(['float32', 'bfloat16']),
  'student.init': _one(['standard', 'copy']),
  'student.layers': _one([{}, {'decoder': 1}, {'encoder': (0,)}]),
  'student.lora.rank': _one([0, 2]),
  'student.remat': st.booleans(),
  'student.remat_policy': _one(['nothing', 'dots']),
  'student.scan': st.booleans(),
  'student.sharding': _one([{}, {'embed': 'data+fsdp'}, {'vocab': ''}]),
  'student.weights': _one(['float32', 'int8', 'bfloat16']),
  'teacher.config': _one([T5, GPT2, LLAMA]),
  'teacher.weights': _one(['float32', 'int8', 'bfloat16']),
  'sampling.samples_per_prompt': _one([1, 2]),
  'sampling.temperature': _one([0.0, 0.7, 1.0]),
  'sampling.top_k': _one([0, 3, 10**6]),
  'sampling.min_new_tokens': _one([0, 2, 6]),
  'sampling.block': _one([1, 8, 100]),
  'sampling.dtype': _one(['', 'bfloat16']),
  'teacher_sampling.draft_tokens': _one([0, 2, 9]),
  'teacher_sampling.temperature': _one([0.0, 1.0]),
  'task.max_prompt_tokens': _one([1, 8, 60]),
  'task.prompt_padding': _one(['left', 'right']),
  'task.teacher_prompts': _one([(), ('Say {input}',)]),
  'task.teacher_responses': _one(['online', '']),
  'micro_batch_size': _one([0, 1, 2, 4, 8]),
  'chunk_size': _one([0, 1, 7, 10**6]),
  'updates_per_rollout': _one([1, 2]),
  'rollout_ahead': st.booleans(),
  'behaviour_sync': _one([0, 3]),
  'teacher_mix': _one([0.0, 0.2]),
  'share_programs': st.booleans(),
  'optimizer.name': _one(['adafactor', 'adamw', 'sgd']),
  'optimizer.schedule': _one(['constant', 'linear', 'cosine', 'rsqrt']),
  'optimizer.trainable': _one(['', 'decoder', 'nothing_of_it']),
  'optimizer.clip_norm': _one([0.0, 1.0]),
  'optimizer.warmup_steps': _one([0, 50]),
}

_NAMES = (
  *(*DIVERGENCES, *STRATEGIES, *BASELINES, 'js', 'kl', 'exact', 'ipo', 'cpo'),
  *('simpo', 'hidden', 'cosine', 'adversarial', 'attention', 'soft', 'hinge'),
  *('reinforce', 'shannon', 'token', 'sum', 'sequence', 'batch', 'example'),
)


def settings():
  """A list of (dotted key, value), the recipe among them."""
  others = st.lists(
    _one([*_SETTINGS]).flatmap(lambda k: st.tuples(st.just(k), _SETTINGS[k])),
    max_size=6,
  )
  names = _one([*RECIPES, 'terms', 'terms', 'terms'])
  recipe = st.tuples(st.just('recipe'), names.flatmap(_recipe))
  return st.builds(lambda first, rest: [first, *rest], recipe, others)


def _recipe(name):
  parameters = inspect.signature(RECIPES[name]).parameters.values()
  args = {
    each.name: _argument(each)
    for each in parameters
    if each.kind != each.VAR_KEYWORD
  }
  needed = {
    each.name: args.pop(each.name)
    for each in parameters
    if each.default is each.empty and each.name in args
  }
  return st.fixed_dictionaries({'name': st.just(name), **needed}, optional=args)


def _argument(parameter):
  named = {
    'terms': st.lists(
      _one([*LOSSES]).flatmap(_term),
      min_size=1,
      max_size=2,
      unique_by=lambda term: term['loss'],
    ),
    'stacks': _one([('decoder',), ('encoder', 'decoder')]),
    'task': _one(['', 'other']),
    'lm_task': _one(['', 'other']),
    'source': _one(['data', 'teacher', 'student']),
    'chosen': _one(['data', 'teacher', 'student']),
    'rejected': _one(['data', 'teacher', 'student']),
    'reward': _one([*REWARDS, *TEXT_REWARDS]),
    'by': _one([*REWARDS, *TEXT_REWARDS]),
  }
  numbers = _one([0.0, 0.1, 0.5, 1.0, 2.0])
  kinds = {
    bool: st.booleans(),
    str: _one(_NAMES),
    Spec: st.one_of(numbers, st.just(RISING)),
  }
  return named.get(parameter.name, kinds.get(parameter.annotation, numbers))


def _term(loss):
  known = LOSSES[loss]

  def value(option):
    if option.choices:
      return _one(option.choices)
    if isinstance(option.default, bool):
      return st.booleans()
    return _one([0, 1, 2]) if option.fixed else _one([0.1, 0.5, 1.0])

  single = (
    *('data', 'student', 'greedy', 'teacher', {'data': 0.5, 'student': 0.5}),
    {'data': 'rest', 'student': RISING},
  )
  pairs = (
    {'chosen': 'data', 'rejected': 'student'},
    {'chosen': 'teacher', 'rejected': 'student'},
    {'ranked': 'student', 'by': 'teacher_logprob'},
  )
  rewards = _one(['brevity', 'teacher_logprob', 'reverse_kl'])
  args = {name: value(option) for name, option in known.args.items()}
  return st.fixed_dictionaries(
    {
      'loss': st.just(loss),
      'source': _one(pairs if known.pair else single),
      **({'reward': rewards} if 'reward' in known.wants({}) else {}),
    },
    optional={
      'loss_args': st.fixed_dictionaries({}, optional=args),
      'weight': _one([1.0, 0.5, RISING]),
      'normalize': _one(['token', 'sequence', 'sum']),
      'finished_only': st.booleans(),
      'task': _one(['', 'other']),
    },
  )
