"""Callbacks that watch training and never take part in it: no gradient, no shared parameter, no random number."""

from ssl_framework.monitors.chance import Chance
from ssl_framework.monitors.collapse import Collapse, CollapseWarning
from ssl_framework.monitors.followers import Followers
from ssl_framework.monitors.gradients import Gradients
from ssl_framework.monitors.knn import OnlineKNN
from ssl_framework.monitors.monitor import Alarm, Monitor, MonitorWarning, alarms, summary
from ssl_framework.monitors.online_probe import OnlineProbe
from ssl_framework.monitors.samples import Samples
from ssl_framework.monitors.similarity import Similarity
from ssl_framework.monitors.targets import Masks, Targets
from ssl_framework.monitors.throughput import Throughput
from ssl_framework.monitors.watch import Labelled, LabelledData, Watched

__all__ = [
    "Alarm",
    "Chance",
    "Collapse",
    "CollapseWarning",
    "Followers",
    "Gradients",
    "Labelled",
    "LabelledData",
    "Masks",
    "Monitor",
    "MonitorWarning",
    "OnlineKNN",
    "OnlineProbe",
    "Samples",
    "Similarity",
    "Targets",
    "Throughput",
    "Watched",
    "alarms",
    "summary",
]
