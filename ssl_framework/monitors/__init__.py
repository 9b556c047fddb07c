"""Callbacks that watch training and never take part in it: no gradient, no shared parameter, no random number."""

from ssl_framework.monitors.collapse import Collapse, CollapseWarning
from ssl_framework.monitors.knn import OnlineKNN
from ssl_framework.monitors.online_probe import OnlineProbe
from ssl_framework.monitors.throughput import Throughput
from ssl_framework.monitors.watch import Labelled, LabelledData, Watched

__all__ = ["Collapse", "CollapseWarning", "Labelled", "LabelledData", "OnlineKNN", "OnlineProbe", "Throughput", "Watched"]
