"""Where models are looked for, and what is said when they aren't there."""

import pytest

from kdjax import hub


def test_directories_are_taken_as_they_are(tmp_path):
  assert hub.locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize('path', ['/no/such/model', './no_such', 'a/b/c'])
def test_a_path_that_is_missing_asks_no_hub(path, monkeypatch):
  monkeypatch.setattr(hub, 'answers', lambda: pytest.fail('asked the hub'))
  with pytest.raises(FileNotFoundError, match='no model directory'):
    hub.locate(path)


def test_without_network_the_error_names_the_embedded_way(monkeypatch):
  monkeypatch.setattr(hub, 'answers', lambda: False)
  with pytest.raises(FileNotFoundError, match=r'gkd_xsum\.py:embedded') as e:
    hub.locate('google/t5-xl-lm-adapt')
  assert "'google/t5-xl-lm-adapt'" in str(e.value)
  assert 'no network' in str(e.value)


def test_an_unknown_shipped_model_lists_those_there_are(monkeypatch, tmp_path):
  (tmp_path / 'one').mkdir()
  monkeypatch.setattr(hub, 'EMBEDDED', tmp_path)
  assert hub.locate('kdjax:one') == tmp_path / 'one'
  with pytest.raises(FileNotFoundError, match=r"kdjax:two.*'kdjax:one'"):
    hub.locate('kdjax:two')
