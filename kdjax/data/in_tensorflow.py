"""Tokenizers in TensorFlow's graphs, where seqio runs them."""

import os
from collections.abc import Sequence
from typing import Any


def load() -> Any:
  """Imports TensorFlow, quietly and off the accelerators, which are jax's."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')
  return tf


def vocabulary(words: Any) -> Any:
  """Returns a `seqio.Vocabulary` that asks a `vocabularies.HuggingFace`."""
  tf = load()
  import seqio

  class TokenizerVocabulary(seqio.Vocabulary):
    """Tokenises in Python, inside a `tf.numpy_function`."""

    eos_id = words.eos_id
    pad_id = words.pad_id
    unk_id = words.tokenizer.unk_token_id
    _base_vocab_size = words.size

    def _encode(self, s: str) -> Sequence[int]:
      return words.encode(s)

    def _decode(self, ids: Sequence[int]) -> str:
      return words.decode(ids)

    def _encode_tf(self, s: Any) -> Any:
      texts = tf.reshape(s, [-1])
      values, lengths = tf.numpy_function(
        words.encode_bytes, [texts], [tf.int32, tf.int64]
      )
      values, lengths = (tf.ensure_shape(x, [None]) for x in (values, lengths))
      if s.shape.rank == 0:
        return values
      return tf.RaggedTensor.from_row_lengths(values, lengths)

    def _decode_tf(self, ids: Any) -> Any:
      return tf.numpy_function(
        lambda i: words.decode(i).encode('utf-8'), [ids], tf.string
      )

  return TokenizerVocabulary()
