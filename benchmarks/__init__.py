"""Benchmarks: ours beside its peers in one run, correct first.

A new suite is a module beside `train.py` and its line in `suites.py`; a new peer is a module in `peers/`
and its line in `peers/__init__.py`. What they share:

- `contender.py`, `contest.py`: contenders are built, checked, and only the correct ones are timed together;
- `apart.py`: a process for each, where they would disturb each other in one; `resident.py`: its memory;
- `measure.py`: the interleaved timing; `cuda_graph.py`: calls of microseconds, without Python between;
- `correctness.py`: the error bounds;
- `step.py`, `training.py`: training steps, and contenders that are such;
- `work.py`, `roofline.py`: the least work of each case, and what this machine can do at most;
- `record.py`, `machine.py`: the JSON, which is the record; `report.py`: its Markdown table;
- `curves.py`, `pictures.py`: how the cost grows with the work, measured and drawn;
- `compare.py`, `noise.py`: what changed between two records;
- `cli.py`: `imagen-fast bench`; `conftest.py` and `bench_*.py`: the same contests for pytest-benchmark.
"""
