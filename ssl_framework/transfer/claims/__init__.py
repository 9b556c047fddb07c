"""What the rows of a study allow to say: gains, verdicts, labels saved, time saved, and how often the verdicts are wrong.

Pure functions of rows. Nothing here trains, reads a file or draws without a key.
"""

from ssl_framework.transfer.claims.efficiency import Efficiency, label_efficiency
from ssl_framework.transfer.claims.familywise import Adjusted, clopper_pearson, holm
from ssl_framework.transfer.claims.gains import Gain, chosen, gain
from ssl_framework.transfer.claims.measured import FLOORS, SCRATCH, TRANSFER, Budget, Measured, Outcome, Row, Rows
from ssl_framework.transfer.claims.null import NullStudies, null_studies
from ssl_framework.transfer.claims.ranges import Middle, Range, middle
from ssl_framework.transfer.claims.speed import Speed, speed
from ssl_framework.transfer.claims.summary import frame, summary
from ssl_framework.transfer.claims.verdicts import FEWEST, Verdict, adjusted, flip, headline, verdicts

__all__ = [
    "FEWEST",
    "FLOORS",
    "SCRATCH",
    "TRANSFER",
    "Adjusted",
    "Budget",
    "Efficiency",
    "Gain",
    "Measured",
    "Middle",
    "NullStudies",
    "Outcome",
    "Range",
    "Row",
    "Rows",
    "Speed",
    "Verdict",
    "adjusted",
    "chosen",
    "clopper_pearson",
    "flip",
    "frame",
    "gain",
    "headline",
    "holm",
    "label_efficiency",
    "middle",
    "null_studies",
    "speed",
    "summary",
    "verdicts",
]
