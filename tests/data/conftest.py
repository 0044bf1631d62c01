"""A tokenizer small enough to write out."""

import pytest


@pytest.fixture
def tiny_tokenizer():
  """Saves a tokenizer of nine words and returns its directory."""

  def save(directory, chat_template=None, bos=None):
    """Saves a word-level tokenizer; '<s>' goes before prompts if `bos`."""
    import tokenizers
    import transformers

    words = ['<unk>', '<s>', '</s>', 'a', 'b', 'c', 'user', 'bot', ':']
    core = tokenizers.Tokenizer(
      tokenizers.models.WordLevel(
        {w: i for i, w in enumerate(words)}, unk_token='<unk>'
      )
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if bos:
      core.post_processor = tokenizers.processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', 1)]
      )
    tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=core,
      unk_token='<unk>',
      bos_token='<s>',
      eos_token='</s>',
    )
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(directory)
    return str(directory)

  return save
