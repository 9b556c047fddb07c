"""What stops a run that must not go on: a signal, numbers that are no numbers, an end that is none."""

from ssl_framework.guards.end import WholeRun
from ssl_framework.guards.finite import FiniteGate, NonFiniteError
from ssl_framework.guards.preemption import Preempted, Preemption

__all__ = ["FiniteGate", "NonFiniteError", "Preempted", "Preemption", "WholeRun"]
