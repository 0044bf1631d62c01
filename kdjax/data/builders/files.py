"""Deterministic files that every builder writes: splits and tokenizers."""

import hashlib
import io
import json
import lzma
import pathlib
from collections.abc import Callable, Iterable, Mapping

SPLITS = ('train', 'validation', 'test')
SPECIAL_IDS = {'pad_id': 0, 'eos_id': 1, 'unk_id': 2, 'bos_id': -1}


def bucket(name: str) -> int:
  """sha256(name) mod 100: the same on every machine, unlike `hash`.

  >>> bucket('zlib')
  78
  """
  return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100


def shuffle_key(name: str) -> str:
  """Sort key of a fixed order that has nothing to do with the alphabet."""
  return hashlib.sha256(f'order:{name}'.encode()).hexdigest()


def split_rows(
  rows: Iterable[Mapping], name: str, split_of: Callable[[Mapping], str]
) -> dict[str, list[Mapping]]:
  """Rows by split, each in the order of the `shuffle_key` of the field `name`.

  A prefix of a split is then a random sample of it.
  """
  splits = {split: [] for split in SPLITS}
  for row in sorted(rows, key=lambda r: shuffle_key(r[name])):
    splits[split_of(row)].append(row)
  return splits


def write_jsonl_xz(path: pathlib.Path, rows: Iterable[Mapping]) -> None:
  """Writes one JSON object a line, UTF-8, xz-compressed."""
  text = ''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows)
  path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def write_splits(
  folder: pathlib.Path, splits: Mapping[str, Iterable[Mapping]]
) -> None:
  """Writes `<split>.jsonl.xz` for every split into `folder`."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, rows in splits.items():
    write_jsonl_xz(folder / f'{name}.jsonl.xz', rows)


def train_sentencepiece(
  path: pathlib.Path, sentences: Iterable[str], **options
) -> None:
  """Trains a SentencePiece model with T5's special ids and writes it.

  One thread, sentences in order: the same text gives the same pieces.
  """
  import sentencepiece

  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(sentences),
    model_writer=model,
    num_threads=1,
    minloglevel=1,
    **SPECIAL_IDS,
    **options,
  )
  path.write_bytes(model.getvalue())


def checksums(folder: pathlib.Path) -> str:
  """The rows of a data card's table of files: name, bytes, sha256."""
  rows = []
  for path in sorted(folder.iterdir()):
    if path.suffix in ('.xz', '.model') or path.name == 'LICENSE':
      data = path.read_bytes()
      digest = hashlib.sha256(data).hexdigest()
      rows.append(f'| `{path.name}` | {len(data)} | `{digest}` |')
  return '\n'.join(rows)
