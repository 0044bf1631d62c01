"""What is asked of models."""


def test_what_trains_is_float32_or_factors(problems, tiny):
  found = problems(
    tiny(
      student__weights='int8',
      teacher__lora={'rank': 2},
      teacher__remat_policy='dots',
      teacher__weights='int4',
    )
  )
  assert "student.weights='int8': what trains is float32" in found
  assert 'student.lora.rank=8' in found
  assert 'teacher.lora.rank=2: only the student trains' in found
  assert "teacher.remat_policy='dots' does nothing" in found
  assert "teacher.weights='int4': allowed are float32, bfloat16, int8" in found
  found = problems(
    tiny(
      student__weights='bfloat16',
      student__lora={'rank': 2, 'targets': '('},
      optimizer__name='adafactor',
    )
  )
  assert 'student.weights' not in found
  assert "student.lora.targets='(' is not a valid regular expression" in found
  assert 'multiply_by_parameter_scale=False' in found


def test_rows_must_divide_over_the_mesh(problems, tiny):
  c = tiny(mesh__fsdp=3, eval__batch_size=9, generate__batch_size=8)
  assert 'batch_size=8 does not divide over mesh.data times' in problems(c)
  assert problems(c, 'generate').startswith('generate.batch_size=8 does not')
  c = tiny(mesh__data=3, mesh__fsdp=2, eval__batch_size=9)
  assert problems(c, 'evaluate').startswith('eval.batch_size=9 does not')
  assert 'mesh.fsdp, 6' in problems(c)
