"""The page in a browser: it stays by itself, and everybody can read it."""

import json

import pytest

# The browser takes 10 s to start, and a page a third of one.
pytestmark = pytest.mark.slow

# Contrast as in WCAG 2.2, of an element's text on the colour behind it.
CONTRAST = """
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((each) => each / 255).map((each) =>
    each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const canvas = new OffscreenCanvas(1, 1).getContext('2d',
  {willReadFrequently: true});
const pixel = (colors) => {
  canvas.clearRect(0, 0, 1, 1);
  for (const color of colors) {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
  }
  return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
};
return [...document.querySelectorAll(arguments[0])].map((element) => {
  const behind = [];
  for (let each = element; each; each = each.parentElement) {
    behind.unshift(getComputedStyle(each).backgroundColor);
  }
  const ground = luminance(pixel(behind));
  const text = luminance(pixel([...behind, getComputedStyle(element).color]));
  const [low, high] = [ground, text].sort((a, b) => a - b);
  return [element.className, (high + 0.05) / (low + 0.05)];
});
"""


def test_nothing_is_requested_but_the_page(reader):
  reader.driver.get_log('performance')
  reader.open('sweep')
  reader.press('j', 'j')
  entries = reader.driver.get_log('performance')
  events = [json.loads(entry['message'])['message'] for entry in entries]
  requests = [
    event['params']
    for event in events
    if event['method'] == 'Network.requestWillBeSent'
  ]
  # The browser may still be asking for parts of its own first page.
  asked = {
    request['request']['url'].partition(':')[0]
    for request in requests
    if not request['documentURL'].startswith('chrome:')
  }
  assert asked <= {'file', 'about', 'data'}
  assert 'file' in asked
  assert reader.js('return performance.getEntriesByType("resource")') == []


def test_the_theme_changes_and_stays(reader):
  ground = 'return getComputedStyle(document.documentElement).backgroundColor'
  reader.open('run')
  seen = {}
  for _ in range(3):
    reader.one('#theme').click()
    seen[reader.one('#theme').text] = reader.js(ground)
  assert set(seen) == {'Theme: auto', 'Theme: light', 'Theme: dark'}
  assert seen['Theme: light'] != seen['Theme: dark']
  reader.driver.execute_cdp_cmd(
    'Emulation.setEmulatedMedia',
    {'features': [{'name': 'prefers-color-scheme', 'value': 'dark'}]},
  )
  assert reader.js(ground) == seen['Theme: dark']
  reader.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})
  reader.one('#theme').click()
  reader.one('#theme').click()
  reader.open('sweep')
  assert reader.one('#theme').text == 'Theme: dark'
  reader.one('#theme').click()


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_text_has_contrast(reader, theme):
  reader.open('sweep')
  reader.js('document.documentElement.dataset.theme = arguments[0]', theme)
  selectors = (
    '.token, .headline, .note, .facts *, .forest span, small, td, th, .foot, '
    '.gain, h4, .heat td *, button, select, .empty'
  )
  found = reader.js(CONTRAST, selectors)
  assert {f'token l{i}' for i in range(7)} <= {name for name, _ in found}
  assert [each for each in found if each[1] < 4.5] == []


def test_tab_reaches_every_control_and_shows_where_it_is(reader):
  reader.open('run')
  wanted = reader.js(
    'const all = [...document.querySelectorAll("a, button:enabled, select, '
    'input, summary, .tokens, .chart svg, .scroll")]'
    '.filter((each) => each.checkVisibility());'
    'all.forEach((each, i) => { each.dataset.test = i; });'
    'return all.length'
  )
  reached, hidden = [], []
  for _ in range(wanted + 8):
    reader.press('\ue004')
    number, outline = reader.js(
      'const on = document.activeElement;'
      'return [on.dataset.test, getComputedStyle(on).outlineStyle]'
    )
    reached.append(number)
    if outline == 'none' and number is not None:
      hidden.append(number)
  assert set(map(str, range(wanted))) <= set(reached)
  assert not hidden


def test_help_opens_and_closes(reader):
  reader.open('run')
  reader.press('?')
  assert reader.one('#keys').is_displayed()
  reader.press('\ue00c')
  assert not reader.one('#keys').is_displayed()


def test_controls_have_names_and_tables_headers(reader):
  for name in ('run', 'sweep'):
    reader.open(name)
    unnamed = reader.js(
      'return [...document.querySelectorAll("button, select, input, svg, '
      '[role=group], [role=region]")].filter((each) => !(each.ariaLabel '
      '|| each.getAttribute("aria-labelledby") || each.textContent.trim()))'
      '.map((each) => each.outerHTML)'
    )
    assert unnamed == []
    assert not reader.all('th:not([scope])')
    ids = reader.js(
      'return [...document.querySelectorAll("[id]")].map((each) => each.id)'
    )
    assert len(ids) == len(set(ids))


def test_a_narrow_screen_is_never_wider_than_itself(reader):
  for name in ('run', 'sweep'):
    reader.open(name)
    reader.driver.execute_cdp_cmd(
      'Emulation.setDeviceMetricsOverride',
      {'width': 400, 'height': 900, 'deviceScaleFactor': 1, 'mobile': True},
    )
    width = reader.js('return document.documentElement.scrollWidth')
    columns = reader.js(
      'return getComputedStyle(document.querySelector(".columns"))'
      '.gridTemplateColumns'
    )
    reader.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    assert width <= 400
    assert len(columns.split()) == 1
