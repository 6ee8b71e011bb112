"""Programs that run under the profiler, and what they noted."""

import os
import subprocess
import sys
import textwrap
import time

from imagen_fast.profiling import program

PRELUDE = """
import time, torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)

class Images(Dataset):
    def __init__(self, count, seconds=0.0):
        self.count, self.seconds = count, seconds
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        time.sleep(self.seconds)
        return torch.zeros(3, 4, 4), index

model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

def learn(images):
    model(images).sum().backward()
    optimizer.step()
"""


def profile_program(folder, code, *, prelude=PRELUDE, window=0, ceilings=False, **variables):
    """Run Python code in the folder: what the profiler collected, and the finished process."""
    script = folder / "program.py"
    script.write_text(prelude + textwrap.dedent(code))
    asked = program.environment(folder, time.monotonic(), window=window, ceilings=ceilings)
    asked |= {
        name: os.pathsep.join([asked[name], value]) if name in asked else value
        for name, value in variables.items()
    }
    ended = subprocess.run(
        [sys.executable, script], env=os.environ | asked, capture_output=True, text=True, cwd=folder
    )
    return program.collect(folder), ended


def only(collected):
    (steps,) = collected.steps
    return steps
