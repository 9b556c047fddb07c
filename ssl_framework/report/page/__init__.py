"""The report as one HTML file that anyone can open, offline: written from plain data, and from nothing else."""

from ssl_framework.report.page.images import Sprite, picture, sprite
from ssl_framework.report.page.page import write_comparison, write_page
from ssl_framework.report.page.study import Study

__all__ = ["Sprite", "Study", "picture", "sprite", "write_comparison", "write_page"]
