"""What ends a run that must not go on: a signal, numbers that are no numbers, a standstill, an end that is none."""

from ssl_framework.guards.end import WholeRun
from ssl_framework.guards.finite import FiniteGate, NonFiniteError
from ssl_framework.guards.preemption import Preempted, Preemption
from ssl_framework.guards.watchdog import Watchdog

__all__ = ["FiniteGate", "NonFiniteError", "Preempted", "Preemption", "Watchdog", "WholeRun"]
