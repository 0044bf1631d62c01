"""What the tests of hostile files share: small models, arbitrary JSON."""

from hypothesis import strategies as st

# What a user sees as one line.
CLEAR = (ValueError, OSError)
LLAMA = {
  'model_type': 'llama',
  'vocab_size': 12,
  'hidden_size': 4,
  'intermediate_size': 6,
  'num_hidden_layers': 1,
  'num_attention_heads': 2,
}
T5 = {
  'model_type': 't5',
  'vocab_size': 12,
  'd_model': 4,
  'd_kv': 2,
  'd_ff': 6,
  'num_layers': 1,
  'num_heads': 2,
}


def outcome(function, *args):
  """Calls a function; all it may do is to return, or to say what is wrong."""
  try:
    return function(*args)
  except CLEAR as error:
    assert str(error).strip()
    return None


JSON = st.recursive(
  st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 2, 3, 10**6, 10**9, 10**18, 10**300]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(['relu', 'silu', 'llama3', 'yarn', 'linear', 'default']),
  ),
  lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
  ),
  max_leaves=6,
)
