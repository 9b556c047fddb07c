"""Does transfer pay? Methods, budgets and paired seeds on one bench, and what may be said of the rows."""

from ssl_framework.transfer import claims, recipe, rows
from ssl_framework.transfer.bench import Bench, Judge, require_disjoint
from ssl_framework.transfer.cells import Cell
from ssl_framework.transfer.grid import cell_of, cells_of, measured_again, study
from ssl_framework.transfer.methods import METHODS, Method
from ssl_framework.transfer.plan import Plan

__all__ = [
    "METHODS",
    "Bench",
    "Cell",
    "Judge",
    "Method",
    "Plan",
    "cell_of",
    "cells_of",
    "claims",
    "measured_again",
    "recipe",
    "require_disjoint",
    "rows",
    "study",
]
