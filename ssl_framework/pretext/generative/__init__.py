"""Generative pretext tasks, one file each."""
