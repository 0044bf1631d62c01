"""Prompts as the papers have them."""

import re

_INTRODUCTION = 'Below is an instruction that describes a task'
_REQUEST = 'Write a response that appropriately completes the request.'
ALPACA_TAIL = '\n\n### Response:\n'


def alpaca(instruction: str, context: str) -> str:
  """The Alpaca prompt, which MiniLLM (Gu et al., 2024) uses for Dolly.

  >>> print(alpaca('Say hi.', ''))
  Below is an instruction that describes a task. Write a response that \
appropriately completes the request.
  <BLANKLINE>
  ### Instruction:
  Say hi.
  <BLANKLINE>
  ### Response:
  <BLANKLINE>
  """
  instruction = f'### Instruction:\n{instruction}'
  if not context:
    head = f'{_INTRODUCTION}. {_REQUEST}\n\n{instruction}'
  else:
    head = (
      f'{_INTRODUCTION}, paired with an input that provides further context. '
      f'{_REQUEST}\n\n{instruction}\n\n### Input:\n{context}'
    )
  return head + ALPACA_TAIL


def gsm8k_solution(answer: str) -> str:
  """A GSM8K solution without its calculator notes.

  >>> gsm8k_solution('He has 2+3=<<2+3=5>>5.\\n#### 1,005')
  'He has 2+3=5.\\n#### 1,005'
  """
  return re.sub(r'<<.*?>>', '', answer)


def gsm8k_reasoning(answer: str) -> str:
  """A GSM8K solution in the manner of `CHAIN_OF_THOUGHT`.

  >>> gsm8k_reasoning('He has 2+3=<<2+3=5>>5.\\n#### 1,005')
  'He has 2+3=5. The answer is 1005.'
  """
  steps, _, final = gsm8k_solution(answer).rpartition('####')
  steps = ' '.join(steps.split())
  return f'{steps} The answer is {final.strip().replace(",", "")}.'


# The first four exemplars of Wei et al. (2022), table 20.
CHAIN_OF_THOUGHT = (
  (
    'There are 15 trees in the grove. Grove workers will plant trees in '
    'the grove today. After they are done, there will be 21 trees. How '
    'many trees did the grove workers plant today?',
    'There are 15 trees originally. Then there were 21 trees after some '
    'more were planted. So there must have been 21 - 15 = 6. The answer '
    'is 6.',
  ),
  (
    'If there are 3 cars in the parking lot and 2 more cars arrive, how '
    'many cars are in the parking lot?',
    'There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The '
    'answer is 5.',
  ),
  (
    'Leah had 32 chocolates and her sister had 42. If they ate 35, how '
    'many pieces do they have left in total?',
    'Originally, Leah had 32 chocolates. Her sister had 42. So in total '
    'they had 32 + 42 = 74. After eating 35, they had 74 - 35 = 39. The '
    'answer is 39.',
  ),
  (
    'Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has '
    '12 lollipops. How many lollipops did Jason give to Denny?',
    'Jason started with 20 lollipops. Then he had 12 after giving some to '
    'Denny. So he gave Denny 20 - 12 = 8. The answer is 8.',
  ),
)
