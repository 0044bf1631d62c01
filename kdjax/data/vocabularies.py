"""Tokenizers: SentencePiece models and Hugging Face tokenizers, alike.

Reading and decoding a SentencePiece model needs the sentencepiece package
alone; TensorFlow is imported only to tokenise a seqio Task.
"""

import abc
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kdjax import files
from kdjax.data import in_tensorflow, tokenizer_files

ASSETS = pathlib.Path(__file__).parent / 'assets'
EMBEDDED = ('debsum', 'g2p')
# T5's number of `<extra_id_k>` pieces, counted down from the end.
NUM_SENTINELS = 100


class Vocabulary(abc.ABC):
  """Text to ids and back.

  Attributes:
    spec: what `load` was given.
    size: number of ids; every id is below it.
    pad_id: id that fills rows. May be `eos_id` (GPT-2), so masks are carried.
    eos_id: id that ends a response.
    fingerprint: sha256 of the mapping from pieces to ids, whatever the file
      format that holds it. Two models can exchange tokens, and so distil into
      each other by soft labels, exactly if their fingerprints agree.
    digest: sha256 of all that changes an encoding: caches are keyed by it.
    prompt_prefix, prompt_suffix: ids that the model family expects around a
      prompt: `</s>` behind it in T5, a `<s>` before it in Llama.
  """

  spec: str
  size: int
  pad_id: int
  eos_id: int
  fingerprint: str
  digest: str
  prompt_prefix: tuple[int, ...] = ()
  prompt_suffix: tuple[int, ...] = ()

  @abc.abstractmethod
  def encode(self, text: str) -> list[int]:
    """Returns the ids of `text`; adds no special ids, no EOS."""

  @abc.abstractmethod
  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of `ids`; drops special ids."""

  def pieces(self, ids: Sequence[int]) -> list[str]:
    """Returns what each of `ids` adds to the text; together they are `decode`.

    A character of several tokens belongs to the last of them.
    """
    whole = self.decode(ids)
    ends = [0]
    for n in range(1, len(ids) + 1):
      # What a later token still changes isn't shared with the whole.
      shared = os.path.commonprefix([self.decode(ids[:n]), whole])
      ends.append(max(ends[-1], len(shared)))
    return [whole[a:b] for a, b in zip(ends, ends[1:])]

  def chat(self, content: str) -> str:
    """Returns the prompt that asks a chat model `content`.

    Raises:
      ValueError: the tokenizer has no chat template.
    """
    raise ValueError(
      f'chat_template=True, but the tokenizer {self.spec!r} has no chat '
      'template: set chat_template=False, or name an instruction-tuned '
      "model's tokenizer"
    )

  @abc.abstractmethod
  def seqio(self) -> Any:
    """Returns the `seqio.Vocabulary` of a Task's output features."""

  @abc.abstractmethod
  def save_pretrained(self, directory: str | os.PathLike) -> None:
    """Writes files that `transformers.AutoTokenizer` loads.

    Ids are the same, save that a SentencePiece model of whole words (g2p)
    joins unknown words into one `<unk>` and transformers doesn't.
    """


class SentencePiece(Vocabulary):
  """A SentencePiece model with T5's conventions: pad 0, EOS behind prompts."""

  def __init__(self, path: str | os.PathLike, spec: str | None = None):
    import sentencepiece

    self.path = str(path)
    self.spec = spec or self.path
    model = _parse_sentencepiece(path)
    self.sentinels = _missing_sentinels(model)
    _add_sentinels(model, self.sentinels)
    self._model = model
    self._processor = sentencepiece.SentencePieceProcessor(
      model_proto=model.SerializeToString()
    )
    self.size = self._processor.get_piece_size()
    self.pad_id = self._processor.pad_id()
    self.eos_id = self._processor.eos_id()
    if self.pad_id < 0 or self.eos_id < 0:
      raise ValueError(
        f'{self.path} has no id for padding or for the end of a sequence: '
        'train it with --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1'
      )
    self.prompt_suffix = (self.eos_id,)
    pieces = [piece for piece, _ in self._pieces()]
    self.fingerprint = _fingerprint({p: i for i, p in enumerate(pieces)})
    self.digest = hashlib.sha256(model.SerializeToString()).hexdigest()
    special = {self.pad_id, self.eos_id}
    special |= {i for i, p in enumerate(pieces) if p.startswith('<extra_id_')}
    self._special = frozenset(special)

  def _pieces(self) -> list[tuple[str, float]]:
    """Pieces and scores, in T5's spelling of the sentinels."""
    return [
      (p.piece.replace('▁<extra_id_', '<extra_id_'), p.score)
      for p in self._model.pieces
    ]

  def encode(self, text: str) -> list[int]:
    return self._processor.encode(text)

  def decode(self, ids: Iterable[int]) -> str:
    kept = [int(i) for i in ids if int(i) not in self._special]
    # Ids beyond the pieces are rows that pad an embedding table.
    unknown = self._processor.unk_id()
    return self._processor.decode(
      [i if i < self.size else unknown for i in kept]
    )

  def seqio(self) -> Any:
    import seqio

    return seqio.SentencePieceVocabulary(self.path, extra_ids=self.sentinels)

  def save_pretrained(self, directory: str | os.PathLike) -> None:
    import transformers

    charsmap = self._model.normalizer_spec.precompiled_charsmap
    pieces = self._pieces()
    tokenizer = transformers.T5Tokenizer(
      vocab=pieces,
      extra_ids=sum(p.startswith('<extra_id_') for p, _ in pieces),
      _spm_precompiled_charsmap=charsmap or None,
      pad_token=pieces[self.pad_id][0],
      eos_token=pieces[self.eos_id][0],
      unk_token=pieces[self._processor.unk_id()][0],
    )
    tokenizer.save_pretrained(directory)
    content = pathlib.Path(self.path).read_bytes()
    (pathlib.Path(directory) / 'spiece.model').write_bytes(content)


class HuggingFace(Vocabulary):
  """A tokenizer of the transformers library."""

  def __init__(self, tokenizer: Any, spec: str):
    self.spec = spec
    self.tokenizer = tokenizer
    mapping = tokenizer.get_vocab()
    self.size = max(mapping.values()) + 1
    self.eos_id = tokenizer.eos_token_id
    if self.eos_id is None:
      raise ValueError(
        f'the tokenizer {spec!r} has no end-of-sequence token: set '
        '`eos_token` in its tokenizer_config.json'
      )
    self.pad_id = tokenizer.pad_token_id
    if self.pad_id is None:
      self.pad_id = self.eos_id
    self.fingerprint = _fingerprint(mapping)
    self.digest = _sha256(
      self.fingerprint,
      self.eos_id,
      self.pad_id,
      tokenizer.chat_template,
      tokenizer.backend_tokenizer.to_str()
      if tokenizer.is_fast
      else type(tokenizer).__name__,
    )
    plain, whole = self.encode('a'), tokenizer.encode('a')
    size = len(plain)
    starts = (i for i in range(len(whole)) if whole[i : i + size] == plain)
    start = next(starts, None)
    if start is None:
      raise ValueError(
        f'the tokenizer {spec!r} gives {plain} for a text, but {whole} with '
        'special ids around it: the one should be in the other'
      )
    self.prompt_prefix = tuple(whole[:start])
    self.prompt_suffix = tuple(whole[start + size :])
    special = {self.eos_id, self.pad_id, *whole}
    if strange := sorted(i for i in special if not 0 <= i < self.size):
      raise ValueError(
        f'the tokenizer {spec!r} puts the ids {strange} into texts, but its '
        f'vocabulary ends at {self.size - 1}'
      )

  def encode(self, text: str) -> list[int]:
    with tokenizer_files.naming(self.spec):
      # Lengths are checked where prompts are: no warning from here.
      return self.tokenizer.encode(
        text, add_special_tokens=False, verbose=False
      )

  def encode_bytes(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids of all texts, end to end, and the length of each."""
    with tokenizer_files.naming(self.spec):
      rows = self.tokenizer(
        [text.decode('utf-8') for text in texts],
        add_special_tokens=False,
        verbose=False,
      )['input_ids']
    lengths = np.array([len(row) for row in rows], np.int64)
    return np.array([i for row in rows for i in row], np.int32), lengths

  def decode(self, ids: Iterable[int]) -> str:
    with tokenizer_files.naming(self.spec):
      return self.tokenizer.decode(
        [int(i) for i in ids], skip_special_tokens=True
      )

  def chat(self, content: str) -> str:
    if not self.tokenizer.chat_template:
      return super().chat(content)
    messages = [{'role': 'user', 'content': content}]
    try:
      # In jinja's sandbox, which runs no code and reaches no file.
      return self.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
      )
    except Exception as error:  # Whatever a template does.
      raise ValueError(
        f'the chat template of the tokenizer {self.spec!r} fails '
        f'({type(error).__name__}: {error}): set chat_template=False, or fix '
        'it'
      ) from error

  def seqio(self) -> Any:
    return in_tensorflow.vocabulary(self)

  def save_pretrained(self, directory: str | os.PathLike) -> None:
    self.tokenizer.save_pretrained(directory)


@functools.lru_cache(maxsize=16)
def load(spec: str) -> Vocabulary:
  """Loads a tokenizer.

  Args:
    spec: 'debsum' or 'g2p' (embedded); the path of a SentencePiece model
      (`*.model`); the path of a directory that holds a Hugging Face tokenizer;
      or its id on the Hugging Face hub.

  Raises:
    FileNotFoundError: nothing of that name exists, or the hub is out of reach.
    ValueError: the tokenizer needs code of its own, or lacks special tokens.
  """
  if spec in EMBEDDED:
    return SentencePiece(ASSETS / spec / 'spiece.model', spec)
  path = files.expanded(spec)
  if path.is_file():
    with tokenizer_files.naming(spec):
      return SentencePiece(path, spec)
  if path.is_dir():
    with tokenizer_files.naming(spec):
      return HuggingFace(tokenizer_files.tokenizer(str(path), EMBEDDED), spec)
  if path.suffix == '.model' or spec.startswith(('/', '.', '~')):
    raise FileNotFoundError(f'no tokenizer at {spec}: no such file or folder')
  with tokenizer_files.naming(spec):
    return HuggingFace(tokenizer_files.tokenizer(spec, EMBEDDED), spec)


def _sha256(*values: Any) -> str:
  text = json.dumps(values, ensure_ascii=False)
  return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()


def _fingerprint(mapping: dict[str, int]) -> str:
  return _sha256(sorted((i, piece) for piece, i in mapping.items()))


def _parse_sentencepiece(path: str | os.PathLike) -> Any:
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto()
  try:
    model.ParseFromString(pathlib.Path(path).read_bytes())
  except Exception as error:  # protobuf's DecodeError moved between versions.
    raise ValueError(f'{path} is not a SentencePiece model: {error}') from error
  if not model.pieces:
    raise ValueError(f'{path} is not a SentencePiece model: it has no pieces')
  return model


def _missing_sentinels(model: Any) -> int:
  """How many sentinels to add: T5's 100 to a unigram model without any."""
  unigram = model.trainer_spec.model_type == 1
  present = any('<extra_id_' in p.piece for p in model.pieces)
  return NUM_SENTINELS if unigram and not present else 0


def _add_sentinels(model: Any, count: int) -> None:
  """Appends sentinels as seqio does, so that both assign the same ids."""
  for i in reversed(range(count)):
    model.pieces.add(
      piece=f'▁<extra_id_{i}>',
      score=0.0,
      type=model.SentencePiece.USER_DEFINED,
    )
