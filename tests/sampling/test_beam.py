import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models, sampling, testing, types
from kdjax.models import api

ROWS, WIDTH, V = 6, 3, 7

logprobs = jax.jit(api.logprobs, static_argnums=0)


def make_prompt(rows=ROWS):
  tokens = jax.random.randint(jax.random.key(5), (rows, WIDTH), 0, V)
  return types.Prompt(tokens, jnp.ones((rows, WIDTH), bool))


def setup(scale=1.5, **options):
  model, params = testing.tabular(
    jax.random.key(1), scale=scale, **{'vocab_size': V, **options}
  )
  return model, params


@functools.partial(jax.jit, static_argnums=0)
def forced(model, params, prompt, tokens):
  return model.head(params, model.hidden_states(params, prompt, tokens))


def torch_twin(model, params, max_new_tokens):
  """Returns the same language model as transformers would have it."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')

  class Twin(transformers.PreTrainedModel, transformers.GenerationMixin):
    config_class = transformers.GPT2Config

    def __init__(self, config):
      super().__init__(config)
      self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, **kwargs):
      ids = np.int32(input_ids)
      prompt = types.Prompt(ids[:, :WIDTH], np.ones((len(ids), WIDTH), bool))
      response = np.zeros((len(ids), max_new_tokens), np.int32)
      length = ids.shape[1] - WIDTH
      response[:, :length] = ids[:, WIDTH:]
      logits = np.array(forced(model, params, prompt, response)[:, length])
      return transformers.modeling_outputs.CausalLMOutput(
        logits=torch.tensor(logits)[:, None]
      )

  config = transformers.GPT2Config(vocab_size=model.vocab_size, use_cache=False)
  return Twin(config).eval()


def transformers_beams(model, params, prompt, *, beams, **settings):
  torch = pytest.importorskip('torch')
  length = settings['max_new_tokens']
  out = torch_twin(model, params, length).generate(
    torch.tensor(np.array(prompt.tokens)),
    num_beams=beams,
    do_sample=False,
    pad_token_id=0,
    return_dict_in_generate=True,
    output_scores=True,
    use_cache=False,
    **settings,
  )
  tokens = out.sequences[:, WIDTH:].numpy()
  tokens = np.pad(tokens, [(0, 0), (0, length - tokens.shape[1])])
  # It takes a pad id of 0 for none, and fills up with the end.
  ends = np.isin(tokens, settings['eos_token_id'])
  tokens[np.cumsum(ends, axis=1) - ends > 0] = 0
  return tokens, out.sequences_scores.numpy()


CASES = [
  {'beams': 2, 'length_penalty': 1.0, 'early_stopping': False},
  {'beams': 4, 'length_penalty': 0.0, 'early_stopping': False},
  {'beams': 4, 'length_penalty': -1.0, 'early_stopping': True},
  {'beams': 2, 'length_penalty': 2.0, 'early_stopping': True},
  {'beams': 4, 'length_penalty': 2.0, 'early_stopping': 'never'},
  {'beams': 3, 'length_penalty': -1.0, 'early_stopping': 'never'},
  {'beams': 3, 'eos_token_id': [1, 4]},
  {'beams': 3, 'min_new_tokens': 3, 'suppress_tokens': [2, 6]},
]


@pytest.mark.parametrize('settings', CASES, ids=str)
def test_agrees_with_transformers(settings):
  # Sharp and flat distributions: early ends, and none before the limit.
  eos = settings.get('eos_token_id', [1])
  for scale in (0.5, 2.0):
    model, params = setup(scale)
    prompt = make_prompt()
    tokens, scores = transformers_beams(
      model,
      params,
      prompt,
      max_new_tokens=6,
      **{'eos_token_id': eos, **settings},
    )
    ours = dict(settings)
    ours.pop('eos_token_id', None)
    response, ours_scores = sampling.beam_search(
      model,
      params,
      prompt,
      max_new_tokens=6,
      eos_id=eos,
      suppress_ids=ours.pop('suppress_tokens', ()),
      **ours,
    )
    np.testing.assert_array_equal(response.tokens, tokens)
    np.testing.assert_allclose(ours_scores, scores, rtol=1e-5)


def hf_config(name):
  transformers = pytest.importorskip('transformers')
  if name == 't5':
    return transformers.T5Config(
      vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2
    )
  return transformers.GPT2Config(
    vocab_size=40,
    n_positions=32,
    n_embd=16,
    n_layer=2,
    n_head=2,
    bos_token_id=1,
    eos_token_id=1,
    pad_token_id=0,
  )


@pytest.mark.parametrize('name', ['t5', 'gpt2'])
def test_agrees_with_transformers_on_real_models(name, tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  model, params = models.from_config(hf_config(name), jax.random.key(0))
  # Fresh models are nearly uniform; larger weights give them an opinion.
  params = jax.tree.map(lambda x: 4 * x if x.ndim > 1 else x, params)
  models.save_pretrained(tmp_path, model, params)
  auto = (
    transformers.AutoModelForSeq2SeqLM
    if name == 't5'
    else transformers.AutoModelForCausalLM
  )
  tokens = np.random.default_rng(0).integers(2, 40, (4, 6))
  mask = np.arange(6)[None] >= np.array([[0], [2], [5], [1]])
  out = auto.from_pretrained(tmp_path).generate(
    torch.tensor(tokens),
    attention_mask=torch.tensor(mask.astype(np.int64)),
    num_beams=3,
    max_new_tokens=8,
    do_sample=False,
    return_dict_in_generate=True,
    output_scores=True,
  )
  expected = out.sequences[:, 1 if name == 't5' else 6 :].numpy()
  expected = np.pad(expected, [(0, 0), (0, 8 - expected.shape[1])])
  response, scores = sampling.beam_search(
    model,
    params,
    types.Prompt(jnp.array(tokens, jnp.int32), jnp.array(mask)),
    beams=3,
    max_new_tokens=8,
  )
  np.testing.assert_array_equal(
    response.tokens, np.where(response.mask, expected, model.pad_id)
  )
  np.testing.assert_allclose(scores, out.sequences_scores.numpy(), atol=1e-4)


@pytest.mark.parametrize('penalty', [0.0, 1.0])
def test_enough_beams_find_the_best_of_all_responses(penalty):
  model, params = setup(vocab_size=3)
  prompt = types.Prompt(
    jnp.array([[0, 1, 2], [2, 2, 1]]), jnp.ones((2, 3), bool)
  )
  response, scores = sampling.beam_search(
    model,
    params,
    prompt,
    beams=27,
    max_new_tokens=3,
    length_penalty=penalty,
    early_stopping='never',
  )
  every = testing.responses(3, 3)
  for row in range(2):
    rows = jnp.full(27, row)
    repeated = types.Prompt(prompt.tokens[rows], prompt.mask[rows])
    policy = logprobs(model, params, repeated, every)
    ends = every == 1
    mask = jnp.cumsum(ends, 1) - ends == 0
    length = mask.sum(1)
    values = jnp.where(mask, policy, 0.0).sum(1) / length**penalty
    best = jnp.argmax(values)
    np.testing.assert_allclose(scores[row], values[best], rtol=1e-5)
    np.testing.assert_array_equal(response.mask[row], mask[best])
    np.testing.assert_array_equal(
      response.tokens[row], jnp.where(mask, every, 0)[best]
    )
    np.testing.assert_allclose(
      response.policy_logprobs[row],
      jnp.where(mask, policy, 0.0)[best],
      atol=1e-5,
    )


@functools.cache
def best_beams():
  model, params = setup()
  return sampling.beam_search(
    model, params, make_prompt(), beams=2, max_new_tokens=6
  )


def test_score_is_the_policy_logprobs_over_the_length():
  response, scores = best_beams()
  expected = response.policy_logprobs.sum(1) / response.mask.sum(1)
  np.testing.assert_allclose(scores, expected, rtol=1e-5)
  model, params = setup()
  policy = logprobs(model, params, make_prompt(), response.tokens)
  np.testing.assert_allclose(
    response.policy_logprobs, jnp.where(response.mask, policy, 0), atol=1e-5
  )
  assert (response.sampling_logprobs == 0).all()


def test_batch_composition_changes_nothing():
  model, params = setup()
  rows = jnp.array([3, 0, 3, 3, 5, 1])
  prompt = jax.tree.map(lambda x: x[rows], make_prompt())
  part, scores = sampling.beam_search(
    model, params, prompt, beams=2, max_new_tokens=6
  )
  np.testing.assert_array_equal(part.tokens, best_beams()[0].tokens[rows])
  np.testing.assert_allclose(scores, best_beams()[1][rows], rtol=1e-6)


def test_one_beam_is_greedy():
  model, params = setup()
  response, _ = sampling.beam_search(
    model, params, make_prompt(), beams=1, max_new_tokens=6
  )
  greedy = sampling.generate(
    model,
    params,
    make_prompt(),
    jax.random.key(0),
    max_new_tokens=6,
    temperature=0,
  )
  np.testing.assert_array_equal(response.tokens, greedy.tokens)
  np.testing.assert_array_equal(response.mask, greedy.mask)


def test_padded_vocabulary_is_never_chosen():
  model, params = setup(num_tokens=4)
  response, _ = sampling.beam_search(
    model, params, make_prompt(), beams=3, max_new_tokens=1
  )
  assert (response.tokens < 4).all()
  assert response.tokens.shape == (ROWS, 1)


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'beams': 0}, 'beams is 0'),
    ({'early_stopping': 'always'}, "early_stopping is 'always'"),
    ({'eos_id': range(7)}, '7 end-of-sequence ids leave nothing'),
    ({'max_new_tokens': 0}, 'max_new_tokens is 0'),
  ],
)
def test_bad_settings_are_named(settings, message):
  model, params = setup()
  settings = {'beams': 2, 'max_new_tokens': 3, **settings}
  with pytest.raises(ValueError, match=message):
    sampling.beam_search(model, params, make_prompt(), **settings)
