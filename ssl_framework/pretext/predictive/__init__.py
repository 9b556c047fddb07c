"""Predictive pretext tasks, one file each."""
