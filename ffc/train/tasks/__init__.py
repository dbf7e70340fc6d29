"""Tasks to train and judge on: SuperGLUE's seven of the paper, text classifications from files, and the hub's."""

from ffc.train.tasks.base import Example, Scores, Task
from ffc.train.tasks.loader import load

__all__ = ["Example", "Scores", "Task", "load"]
