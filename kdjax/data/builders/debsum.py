"""Builds debsum: Debian package descriptions to their one-line synopsis.

  python -m kdjax.data.builders.debsum --out DIR

reads the index of Debian's main section through apt, under a configuration of
its own, so that nothing of the system's changes. `--packages FILE` and
`--translation FILE` read two files instead: a `Packages` index and its
`Translation-en`.
"""

import argparse
import collections
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping

from kdjax.data.builders import files

MIN_WORDS = 15
BOILERPLATE_WORDS = 6
BOILERPLATE_OTHERS = 20
VOCABULARY_SIZE = 8000

_APT_CONF = """\
Dir::State::Lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Dir::Etc::parts "{folder}/parts";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
Acquire::Languages {{ "en"; }};
"""


def stanzas(text: str) -> Iterator[dict[str, str]]:
  """Fields of each stanza of a Debian control file; folded lines kept raw."""
  for stanza in re.split(r'\n\n+', text.strip('\n')):
    fields, name = {}, None
    for line in stanza.split('\n'):
      if line[:1] in (' ', '\t') and name:
        fields[name] += '\n' + line
      elif ':' in line:
        name, value = line.split(':', 1)
        fields[name] = value.strip()
    yield fields


def paragraphs(long_description: str) -> list[str]:
  """Paragraphs of a long description: a line ' .' separates two.

  >>> paragraphs(' One\\n  line.\\n .\\n Two.')
  ['One line.', 'Two.']
  """
  parts = re.split(r'^ \.\s*$', long_description, flags=re.M)
  joined = (' '.join(part.split()) for part in parts)
  return [part for part in joined if part]


def join(packages: str, translation: str) -> list[dict[str, str]]:
  """Every package of an index with its English description, by md5."""
  texts = {}
  for fields in stanzas(translation):
    if 'Description-en' in fields:
      synopsis, _, long = fields['Description-en'].partition('\n')
      texts[fields['Description-md5']] = (synopsis, paragraphs(long))
  rows = {}
  for fields in stanzas(packages):
    synopsis, parts = texts.get(fields.get('Description-md5'), ('', []))
    name = fields.get('Package', '')
    rows[name] = {
      'id': name,
      # `Source: gcc-12 (12.2.0-14)` names a version where the two differ.
      'source': fields.get('Source', name).split(' ')[0],
      'document': ' '.join(parts),
      'summary': ' '.join(synopsis.split()),
    }
  return [row for row in rows.values() if row['document'] and row['summary']]


def _preference(row: Mapping[str, str]) -> tuple:
  """The package named as its source first, then in order of the names."""
  return row['source'], row['id'] != row['source'], row['id']


def _shape(document: str) -> str:
  """The document without digits and case: versions of one text agree."""
  return re.sub(r'\d+', '0', document.lower())


def drop_duplicates(rows: Iterable[Mapping]) -> list[Mapping]:
  """Keeps the first row of every document, numbers and case aside."""
  kept = {}
  for row in sorted(rows, key=_preference):
    kept.setdefault(_shape(row['document']), row)
  return list(kept.values())


def drop_boilerplate(rows: Iterable[Mapping]) -> list[Mapping]:
  """Drops documents sharing their first six words with 20 others or more."""
  rows = list(rows)
  opening = [tuple(r['document'].split()[:BOILERPLATE_WORDS]) for r in rows]
  count = collections.Counter(opening)
  return [r for r, o in zip(rows, opening) if count[o] <= BOILERPLATE_OTHERS]


def one_per_source(rows: Iterable[Mapping]) -> list[Mapping]:
  """Keeps the package named as its source, else the first by name."""
  kept = {}
  for row in sorted(rows, key=_preference):
    kept.setdefault(row['source'], row)
  return list(kept.values())


def select(rows: Iterable[Mapping]) -> list[Mapping]:
  """The rows of debsum: long enough, distinct, no templates, one a source."""
  long = [r for r in rows if len(r['document'].split()) >= MIN_WORDS]
  return one_per_source(drop_boilerplate(drop_duplicates(long)))


def split_of(row: Mapping[str, str]) -> str:
  """Split by source package: a source's packages describe one program."""
  number = files.bucket(row['source'])
  return 'test' if number < 5 else 'validation' if number < 10 else 'train'


def _run(*command: str, config: pathlib.Path) -> str:
  return subprocess.run(
    command,
    env={'APT_CONFIG': str(config), 'PATH': '/usr/bin:/bin', 'LC_ALL': 'C'},
    check=True,
    capture_output=True,
    encoding='utf-8',
  ).stdout


def fetch(release: str) -> tuple[str, str]:
  """The texts of `Packages` and `Translation-en` of a release, by apt.

  Raises:
    LookupError: apt's sources don't hold the release's main section.
  """
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    for part in ('lists/partial', 'cache/archives/partial', 'parts'):
      (folder / part).mkdir(parents=True)
    config = folder / 'apt.conf'
    config.write_text(_APT_CONF.format(folder=folder))
    _run('apt-get', '-qq', 'update', config=config)
    form = '$(CREATED_BY) $(CODENAME) $(COMPONENT) $(FILENAME)'
    listing = _run('apt-get', 'indextargets', '--format', form, config=config)
    targets = [line.split(' ', 3) for line in listing.splitlines()]
    found = {t[0]: t[3] for t in targets if t[1:3] == [release, 'main']}
    if not {'Packages', 'Translations'} <= found.keys():
      raise LookupError(
        f'apt holds no main section of {release!r}, only '
        f'{sorted({t[1] for t in targets})}: pass one of these as --release, '
        'or the files as --packages and --translation'
      )
    helper = '/usr/lib/apt/apt-helper'
    return tuple(
      _run(helper, 'cat-file', found[kind], config=config)
      for kind in ('Packages', 'Translations')
    )


def build(packages: str, translation: str, out: pathlib.Path) -> None:
  """Writes the three splits and the tokenizer into `out`."""
  splits = files.split_rows(select(join(packages, translation)), 'id', split_of)
  files.write_splits(out, splits)
  texts = (
    text
    for r in splits['train']
    for text in (f'{r["id"]}: {r["document"]}', r['summary'])
  )
  files.train_sentencepiece(
    out / 'spiece.model',
    texts,
    model_type='unigram',
    vocab_size=VOCABULARY_SIZE,
    character_coverage=0.9999,
    normalization_rule_name='nmt_nfkc',
    max_sentence_length=1 << 16,
  )
  print({name: len(rows) for name, rows in splits.items()})
  print(files.checksums(out))


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--release', default='bookworm')
  parser.add_argument('--packages', type=pathlib.Path)
  parser.add_argument('--translation', type=pathlib.Path)
  args = parser.parse_args(argv)
  if bool(args.packages) != bool(args.translation):
    parser.error('--packages and --translation go together')
  if args.packages:
    texts = (
      args.packages.read_text('utf-8'),
      args.translation.read_text('utf-8'),
    )
  else:
    texts = fetch(args.release)
  build(*texts, args.out)


if __name__ == '__main__':
  main()
