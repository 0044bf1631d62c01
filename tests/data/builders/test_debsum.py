"""The rules by which debsum is built, on a hand-written index."""

import hashlib
import json
import lzma

import pytest

from kdjax.data.builders import debsum

PACKAGES = """\
Package: frobtool
Source: frob (1.2-3)
Section: utils
Description: frobnicates files
Description-md5: aaaa
Tag: role::program,
 use::editing

Package: frob
Description: frobnicates files, core
Description-md5: bbbb

Package: orphan
Description: has no translation
Description-md5: cccc
"""

TRANSLATION = """\
Package: frobtool
Description-md5: aaaa
Description-en: frobnicates  files
 Frob is a tool:
  * it reads files
 .
 It was written
 in a hurry.

Package: frob
Description-md5: bbbb
Description-en: frobnicates files, core
 Part one.
"""


def row(name, source=None, document=None, summary='does things'):
  document = document or f'{name} ' + ' '.join(f'word{i}' for i in range(20))
  return {
    'id': name,
    'source': source or name,
    'document': document,
    'summary': summary,
  }


def test_join_takes_the_text_by_md5_and_the_source_by_name():
  assert debsum.join(PACKAGES, TRANSLATION) == [
    {
      'id': 'frobtool',
      'source': 'frob',
      'document': 'Frob is a tool: * it reads files It was written in a hurry.',
      'summary': 'frobnicates files',
    },
    {
      'id': 'frob',
      'source': 'frob',
      'document': 'Part one.',
      'summary': 'frobnicates files, core',
    },
  ]


def test_paragraph_mark_is_a_line_of_its_own():
  text = ' Version 1\n . \n .5 of it\n .\n'
  assert debsum.paragraphs(text) == ['Version 1', '.5 of it']


def test_duplicates_are_found_across_numbers_and_case():
  rows = [
    row('b2', document='Lua 5.1 rocks'),
    row('a', document='lua 5.3 rocks'),
  ]
  assert debsum.drop_duplicates(rows) == [rows[1]]


@pytest.mark.parametrize(('others', 'kept'), [(19, 20), (20, 0)])
def test_boilerplate_is_an_opening_shared_with_twenty_others(others, kept):
  opening = 'This package contains the source for'
  rows = [row(f'p{i}', document=f'{opening} p{i}') for i in range(others + 1)]
  other = row('other', document='This package contains the source of other')
  assert len(debsum.drop_boilerplate([*rows, other])) == kept + 1


def test_one_per_source_prefers_its_name_then_the_alphabet():
  rows = [
    row('a-doc', 'zed'),
    row('zed', 'zed'),
    row('libq2', 'q'),
    row('libq1', 'q'),
  ]
  kept = debsum.one_per_source(rows)
  assert {r['source']: r['id'] for r in kept} == {'zed': 'zed', 'q': 'libq1'}
  assert debsum.one_per_source(rows[::-1]) == kept


def test_select_drops_documents_under_fifteen_words():
  short = row('short', document=' '.join(['word'] * 14))
  enough = row('enough', document=' '.join(['word'] * 15))
  assert debsum.select([short, enough]) == [enough]


def test_split_is_by_sha256_of_the_source():
  limits = {
    'test': range(5),
    'validation': range(5, 10),
    'train': range(10, 100),
  }
  seen = set()
  for i in range(300):
    example = row(f'package{i}', source=f'source{i}')
    digest = hashlib.sha256(f'source{i}'.encode()).hexdigest()
    split = debsum.split_of(example)
    assert int(digest, 16) % 100 in limits[split]
    seen.add(split)
  assert seen == set(limits)


def test_command_line_builds_the_same_bytes_twice(tmp_path, monkeypatch):
  pytest.importorskip('sentencepiece')
  monkeypatch.setattr(debsum, 'VOCABULARY_SIZE', 60)
  stanzas = [
    (
      f'Package: pkg{i}\nDescription-md5: {i}',
      f'Description-md5: {i}\nDescription-en: tool {i}\n {chr(97 + i)} '
      + 'the quick brown fox jumps over a lazy dog ' * 2,
    )
    for i in range(20)
  ]
  for name, column in (('Packages', 0), ('Translation-en', 1)):
    text = '\n\n'.join(stanza[column] for stanza in stanzas)
    (tmp_path / name).write_text(text)
  arguments = ['--packages', f'{tmp_path}/Packages']
  arguments += ['--translation', f'{tmp_path}/Translation-en']
  for out in ('one', 'two'):
    debsum.main([*arguments, '--out', f'{tmp_path}/{out}'])
  names = sorted(path.name for path in (tmp_path / 'one').iterdir())
  assert names == [
    'spiece.model',
    'test.jsonl.xz',
    'train.jsonl.xz',
    'validation.jsonl.xz',
  ]
  for name in names:
    one, two = (tmp_path / out / name for out in ('one', 'two'))
    assert one.read_bytes() == two.read_bytes(), name
  text = lzma.decompress((tmp_path / 'one/train.jsonl.xz').read_bytes())
  assert json.loads(text.splitlines()[0])['summary'].startswith('tool ')


def test_command_line_wants_both_files(capsys):
  with pytest.raises(SystemExit):
    debsum.main(['--out', 'nowhere', '--packages', 'Packages'])
  assert 'go together' in capsys.readouterr().err


def test_fetch_names_the_releases_that_apt_holds(monkeypatch):
  listing = 'Packages trixie main /lists/Packages\n'
  monkeypatch.setattr(debsum, '_run', lambda *command, config: listing)
  with pytest.raises(LookupError, match=r"'bookworm'.*\['trixie'\]"):
    debsum.fetch('bookworm')
