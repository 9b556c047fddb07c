"""Self-supervised pretraining, transfer, and the proof that it paid."""

__version__ = "0.1.0"
