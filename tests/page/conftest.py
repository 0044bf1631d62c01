"""One browser for all tests of pages, and the pages."""

import os
import shutil

import pytest

from kdjax import page
from tests.page import folders

CHROMIUM, DRIVER = shutil.which('chromium'), shutil.which('chromedriver')


@pytest.fixture(scope='session')
def urls(tmp_path_factory):
  base = tmp_path_factory.mktemp('pages')
  written = {
    'run': folders.run(base / 'run'),
    'sweep': folders.sweep(base / 'sweep'),
    'empty': base / 'empty',
  }
  folders.add_axis(folders.sweep(base / 'cube'))
  written['cube'] = base / 'cube'
  scores = {(0, 0.1): [..., None], (1, 0.9): [..., ...]}
  written['waiting'] = folders.sweep(base / 'waiting', scores)
  folders.write_json(base / 'empty' / 'config.json', folders.config())
  return {name: page.write(each).as_uri() for name, each in written.items()}


@pytest.fixture(scope='session')
def chrome(tmp_path_factory):
  if not (CHROMIUM and DRIVER):
    if 'CI' in os.environ or os.environ.get('KDJAX_BROWSER') == 'required':
      pytest.fail('no chromium and chromedriver in PATH')
    pytest.skip('no chromium and chromedriver in PATH')
  from selenium import webdriver

  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for flag in (
    'headless=new',
    'no-sandbox',
    'disable-gpu',
    'disable-quic',
    'no-first-run',
    'disable-background-networking',
    'disable-component-update',
    'disable-sync',
    'disable-dev-shm-usage',
    'window-size=1280,1200',
    f'user-data-dir={tmp_path_factory.mktemp("profile")}',
  ):
    options.add_argument(f'--{flag}')
  logs = {'browser': 'ALL', 'performance': 'ALL'}
  options.set_capability('goog:loggingPrefs', logs)
  # The path of the driver, or selenium would look for one to download.
  driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
  yield driver
  driver.quit()


@pytest.fixture
def reader(chrome, urls):
  from tests.page.reader import Reader

  chrome.get_log('browser')
  yield Reader(chrome, urls)
  # Whatever a test does, nothing goes wrong in the page.
  assert not [each['message'] for each in chrome.get_log('browser')]
