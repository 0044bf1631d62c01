"""A reader of pages, in a headless Chromium."""

import urllib.parse

from selenium.webdriver import ActionChains
from selenium.webdriver.support.ui import Select, WebDriverWait


class Reader:
  """Opens a page, and looks, types and clicks as a reader does."""

  def __init__(self, driver, urls):
    self.driver, self._urls = driver, urls
    self._wait = WebDriverWait(driver, 20)

  def open(self, name, **state):
    self.driver.get('about:blank')  # or a new hash alone would not load it
    hash_ = urllib.parse.urlencode(state)
    self.driver.get(self._urls[name] + (f'#{hash_}' if hash_ else ''))
    # The last thing that a page does.
    self._wait.until(lambda driver: driver.title.endswith('kdjax'))
    return self

  def js(self, code, *arguments):
    return self.driver.execute_script(code, *arguments)

  def all(self, selector):
    return self.driver.find_elements('css selector', selector)

  def one(self, selector):
    (found,) = self.all(selector)
    return found

  def texts(self, selector):
    return self.js(
      'return [...document.querySelectorAll(arguments[0])]'
      '.map((each) => each.textContent)',
      selector,
    )

  def choose(self, label, value):
    Select(self.one(f'[aria-label="{label}"]')).select_by_value(value)

  def press(self, *keys):
    ActionChains(self.driver).send_keys(*keys).perform()

  def focused(self):
    return self.js(
      'const on = document.activeElement;'
      'return on.getAttribute("aria-label") || on.id || on.textContent.trim()'
    )

  @property
  def state(self):
    return dict(
      urllib.parse.parse_qsl(self.js('return location.hash.slice(1)'))
    )

  def examples(self):
    return [text.removeprefix('#') for text in self.texts('.example h3')]
