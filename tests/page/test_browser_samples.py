"""The sample browser: search, filters, orders, keys and shades."""

import pytest

from tests.page import folders

# The browser takes 10 s to start, and a page a third of one.
pytestmark = pytest.mark.slow


def test_prompts_are_text(reader):
  reader.open('run')
  shown = reader.texts('.prompt')[0]
  assert shown == folders.NASTY
  assert reader.js('return window.hacked') is None
  assert not reader.all('.prompt *')


def test_filters_keep_what_they_say(reader):
  reader.open('run')
  counts = {}
  for kind in ('improved', 'worse', 'equal', 'all'):
    reader.choose('Show', kind)
    counts[kind] = int(reader.one('#samples [role="status"]').text.split()[0])
    mark = {'improved': '▲', 'worse': '▼', 'equal': 'equal', 'all': ''}[kind]
    assert all(mark in text for text in reader.texts('.gain'))
  assert counts.pop('all') == sum(counts.values()) == 25
  assert all(counts.values())


def test_lengths_are_bounds(reader):
  reader.open('run', **{'from': 5, 'to': 6})
  lengths = [
    int(text.split()[0])
    for text in reader.texts('.said:last-child .foot span')
    if text.endswith(' tokens')
  ]
  assert lengths and set(lengths) <= {5, 6}


def test_less_is_better_of_a_metric_where_it_is(reader):
  reader.open('run', score='ter', filter='improved', sort='gain', order='down')
  assert all('▲' in text for text in reader.texts('.gain'))
  ter = lambda i: [
    float(text.split()[1])
    for text in reader.texts(f'.said:nth-child({i}) .foot .main')
    if text.startswith('ter')
  ]
  before, after = ter(3), ter(4)
  gains = [b - a for a, b in zip(after, before)]
  assert gains == sorted(gains, reverse=True) and gains[-1] > 0


@pytest.mark.parametrize('key', ['gain', 'score', 'divergence', 'length', 'id'])
def test_both_orders_hold_the_same_examples(reader, key):
  def order(direction):
    found = []
    for number in (1, 2, 3):
      reader.open('run', sort=key, order=direction, page=number)
      found += reader.examples()
    return found

  up, down = order('up'), order('down')
  assert sorted(up) == sorted(down) and len(set(up)) == 25
  assert up != down
  assert (up == sorted(up, key=int)) == (key == 'id')


def test_the_search_keeps_its_focus_while_one_types(reader):
  reader.open('run')
  reader.press('/')
  reader.press(*'Example 12')
  assert reader.examples() == ['112']
  assert reader.focused() == 'Search the texts'
  assert reader.state == {'search': 'Example 12'}
  reader.press('\ue00c')  # escape leaves it
  assert reader.focused() != 'Search the texts'


def test_letters_move_between_examples_and_pages(reader):
  reader.open('run')
  reader.press('j')
  assert reader.focused() == 'Example 100'
  reader.press('j', 'j', 'k')
  assert reader.focused() == 'Example 101'
  reader.press('\ue015')  # down
  assert reader.focused() == 'Example 102'
  reader.press(*'j' * 8)
  assert reader.focused() == 'Example 110' and reader.state == {'page': '2'}
  reader.press('k')
  assert reader.focused() == 'Example 109'
  reader.one('[aria-label="Next page"]').click()
  assert reader.examples()[0] == '110'


def test_arrow_keys_read_the_tokens(reader):
  reader.open('run')
  reader.js('document.querySelector(".said:last-child .tokens").focus()')
  first = reader.one('#tip').text
  assert 'forward KL' in first and first.endswith(' nats')
  reader.press('\ue014')
  assert reader.one('#tip').text != first
  reader.choose('Colour', 'reverse_kl')
  reader.js('document.querySelector(".said:last-child .tokens").focus()')
  assert 'reverse KL' in reader.one('#tip').text


def test_the_shades_are_those_of_the_numbers(reader):
  reader.open('run')
  said = reader.js(
    'return [...document.querySelectorAll(".tokens [data-says]")]'
    '.map((each) => [each.className, each.dataset.says])'
  )
  limits = [0.01, 0.03, 0.1, 0.3, 1, 3]
  assert said
  for name, text in said:
    value = float(text.split()[-2])
    assert name == f'token l{sum(value >= limit for limit in limits)}'


def test_two_runs_of_a_sweep_side_by_side(reader):
  reader.open('sweep')
  reader.choose('Run', 'lam=1, beta=0.1')
  reader.choose('Against', 'lam=0, beta=0.1')
  assert reader.texts('.example:first-child h4') == [
    'gold',
    'teacher',
    'student before',
    'lam=0, beta=0.1',
    'lam=1, beta=0.1',
  ]
  assert reader.state == {
    'run': 'lam=1, beta=0.1',
    'against': 'lam=0, beta=0.1',
  }


def test_an_address_leads_to_the_same_view(reader):
  state = {'filter': 'worse', 'sort': 'gain', 'search': 'the', 'x': 'seconds'}
  reader.open('run', **state)
  assert reader.state == state
  found = reader.examples()
  reader.open('run', filter='worse', sort='gain', search='the')
  assert reader.examples() == found
  # An address that has grown old shows what is there.
  reader.open('run', run='gone', sort='gone', x='gone', page='99', score='gone')
  assert reader.examples() and reader.all('.chart .line')
