"""Files of rows, in every format that is read."""

import csv
import gzip
import json
import lzma

ROWS = [{'q': 'one, "two"\nthree', 'a': 'x\u2028y'}, {'q': 'q2', 'a': 'ä'}]


def write(path, rows=None):
  """Writes rows in the format of the path's ending."""
  rows = ROWS if rows is None else rows
  lines = '\n'.join(json.dumps(r, ensure_ascii=False) for r in rows)
  if path.name.endswith('.jsonl'):
    path.write_text(lines, encoding='utf-8')
  elif path.name.endswith('.jsonl.gz'):
    path.write_bytes(gzip.compress(lines.encode()))
  elif path.name.endswith('.jsonl.xz'):
    path.write_bytes(lzma.compress(lines.encode()))
  elif path.suffix == '.csv':
    with path.open('w', encoding='utf-8', newline='') as file:
      writer = csv.DictWriter(file, list(rows[0]))
      writer.writeheader()
      writer.writerows(rows)
  else:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  return path
