"""Texts that the tests of metrics share."""

PREDICTIONS = [
  'the cat sat on the mat',
  'A library for parsing files.',
  'tools, and more tools',
  '',
  'nothing in common here at all',
]
REFERENCES = [
  ('the cat sat on a mat', 'a cat was sitting on the mat'),
  ('library for parsing of files',),
  ('more tools and tools', 'tools!', 'the tool is running'),
  ('empty prediction', 'another'),
  ('completely different words',),
]
# sacrebleu wants one list a reference position.
COLUMNS = [
  [refs[i] if i < len(refs) else None for refs in REFERENCES] for i in range(3)
]
