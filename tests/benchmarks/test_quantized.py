"""Fewer bits agree less, in the order of their number."""

import pytest

from benchmarks import quantized


@pytest.mark.slow
def test_fewer_bits_agree_less(tmp_path):
  record = quantized.main(['--examples=8', '--batch=8', f'--out={tmp_path}'])
  rows = {(x['weights'], x['computed in']): x for x in record['rows']}
  narrow, eight = (rows[w, 'float32'] for w in ('bfloat16', 'int8'))
  assert 0 < narrow['mean KL'] < eight['mean KL'] < 1e-3
  assert (
    eight['MiB'] < narrow['MiB'] < 0.51 * rows['float32', 'bfloat16']['MiB']
  )
  # What products are made of is all the same.
  wide, narrow = (rows[w, 'bfloat16'] for w in ('float32', 'bfloat16'))
  assert wide['mean KL'] == narrow['mean KL']
  assert (
    '| int8 |' in (tmp_path / 'quantized-kdjax-debsum-teacher.md').read_text()
  )
