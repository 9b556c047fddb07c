"""What phase 2 learns from labels."""

from ssl_framework.downstream.tasks.base import Task
from ssl_framework.downstream.tasks.classes import Classification, MultiLabel
from ssl_framework.downstream.tasks.numbers import Ordinal, Regression

__all__ = ["Classification", "MultiLabel", "Ordinal", "Regression", "Task"]
