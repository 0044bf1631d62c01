"""The finding, the curves, the map and the table in a browser."""

import pytest

# The browser takes 10 s to start, and a page a third of one.
pytestmark = pytest.mark.slow


def test_both_kinds_of_page_say_what_was_found(reader):
  reader.open('run')
  assert 'recovers 67% of the gap' in reader.one('.headline').text
  assert reader.driver.title == 'debsum: gkd – kdjax'
  assert len(reader.all('.forest li:not(.axis)')) == 3
  reader.open('sweep')
  assert reader.one('.headline').text.startswith('lam=0.5, beta=0.1')
  assert len(reader.all('.forest li:not(.axis)')) == 8
  assert len(reader.all('.heat td[data-setting]')) == 6


def test_a_run_without_results_says_so(reader):
  reader.open('empty')
  assert reader.one('.headline').text == 'There are no test scores.'
  assert 'There are no samples' in reader.one('#samples .empty').text
  assert not reader.one('#curves').is_displayed()
  reader.press('j', '/')  # nothing to move to, and no error


def test_a_sweep_of_which_nothing_is_done_says_so(reader):
  reader.open('waiting')
  assert reader.one('.headline').text == 'No run is done yet.'
  assert 'There are no samples' in reader.one('#samples .empty').text
  assert not reader.one('#heat').is_displayed()
  assert reader.texts('.scores td:nth-child(3)')[1] == '0 of 22 pending'


def test_a_click_on_a_header_sorts(reader):
  reader.open('sweep')
  body = '.scores tbody:first-of-type'
  column = lambda: [
    float(text)
    for text in reader.texts(f'{body} td:nth-child(4) > :first-child')
  ]
  sort = lambda: reader.js(
    'return document.querySelector("[data-key=\'metric.rouge2\']")'
    '.closest("th").ariaSort'
  )
  assert column() == sorted(column(), reverse=True) and sort() == 'descending'
  reader.one('[data-key="metric.rouge2"]').click()
  assert column() == sorted(column()) and sort() == 'ascending'
  assert reader.state == {'table': 'metric.rouge2.asc'}
  assert reader.js('return document.activeElement.dataset.key') == (
    'metric.rouge2'
  )
  reader.one('[data-key="axis.beta"]').click()
  assert reader.texts(f'{body} td:nth-child(2)') == (['0.1'] * 3 + ['0.9'] * 3)
  assert sort() == 'none'


def test_failed_runs_say_why(reader):
  reader.open('sweep')
  cell = '.scores td:nth-child(3)'
  assert reader.texts(cell)[:4] == [
    '3',
    '3',
    '2 of 31 failedseed 1\nstep 31\nkdjax: loss is not finite',
    '1 of 32 pending',
  ]
  reader.one('tbody details summary').click()
  assert 'loss is not finite' in reader.one('tbody details pre').text


def test_the_map_holds_the_scores_of_two_axes(reader):
  reader.open('sweep')
  rows = lambda: [
    reader.texts(f'.heat tbody tr:nth-child({i}) strong') for i in (1, 2)
  ]
  assert rows() == [['18.10', '21.40', '21.38'], ['17.33', '20.40', '19.00']]
  reader.choose('Across', 'beta')
  assert reader.texts('.heat tbody th') == ['0', '0.5', '1']
  assert rows()[1] == ['21.40', '20.40']
  assert reader.state == {'across': 'beta', 'down': 'lam'}


def test_a_third_axis_is_held_at_a_value(reader):
  reader.open('cube')
  cells = '.heat tbody tr:first-child td'
  assert reader.texts(cells)[2] == 'not run'
  reader.choose('kind at', 'late')
  assert reader.texts(cells)[:2] == ['not run', 'not run']
  assert reader.texts(cells)[2].startswith('21.38')
  assert reader.focused() == 'kind at'
  assert reader.state == {'at.kind': 'late'}


def test_curves_change_their_axis(reader):
  reader.open('sweep')
  first = reader.texts('.chart .label')
  assert first == ['steps', 'steps']
  before = reader.js('return document.querySelector(".best .line").outerHTML')
  reader.choose('X axis', 'seconds')
  assert reader.texts('.chart .label') == ['seconds', 'seconds']
  reader.choose('Validation', 'eval/ter')
  after = reader.js('return document.querySelector(".best .line").outerHTML')
  assert before != after
  assert reader.state == {'x': 'seconds', 'validation': 'eval/ter'}


def test_a_setting_in_focus_stands_out_everywhere(reader):
  reader.open('sweep')
  reader.js('document.querySelector(".heat td[data-setting]").focus()')
  lit = reader.js(
    'return [...document.querySelectorAll(".lit")]'
    '.map((each) => [each.localName, each.dataset.setting])'
  )
  assert {setting for _, setting in lit} == {'lam=0, beta=0.1'}
  assert {'li', 'g', 'td', 'tr', 'button'} <= {tag for tag, _ in lit}


def test_arrow_keys_read_a_curve(reader):
  reader.open('run')
  reader.js('document.querySelector(".chart svg").focus()')
  reader.press('\ue014')  # right
  assert reader.one('#tip').text.startswith('student after\nrouge2 ')
  assert reader.one('#tip').text.endswith(' at 0 steps')
  reader.press('\ue014')
  assert reader.one('#tip').text.endswith(' at 10 steps')


def test_arrow_keys_lead_from_curve_to_curve(reader):
  reader.open('sweep')
  reader.js('document.querySelector(".chart svg").focus()')
  reader.press('\ue014', '\ue015')
  assert reader.one('#tip').text.startswith('lam=1, beta=0.1\n')
  reader.press('\ue013', '\ue013')  # up, and no further
  assert reader.one('#tip').text.startswith('lam=0.5, beta=0.1\n')
