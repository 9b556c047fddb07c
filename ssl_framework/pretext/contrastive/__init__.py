"""Contrastive pretext tasks, one file each."""
