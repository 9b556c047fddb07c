"""What ends a run that must not go on: a signal, NaN, a standstill, an end that is none, processes that drift apart."""

from ssl_framework.guards.agreement import RankAgreement, RanksDisagreeError
from ssl_framework.guards.end import WholeRun
from ssl_framework.guards.finite import FiniteGate, NonFiniteError
from ssl_framework.guards.preemption import Preempted, Preemption
from ssl_framework.guards.watchdog import Watchdog

__all__ = [
    "FiniteGate",
    "NonFiniteError",
    "Preempted",
    "Preemption",
    "RankAgreement",
    "RanksDisagreeError",
    "Watchdog",
    "WholeRun",
]
