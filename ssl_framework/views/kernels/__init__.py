"""The applying half of augmentation: kernels without randomness."""
