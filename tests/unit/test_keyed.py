"""The generator behind order, views and masks: SplitMix64, whatever the batch."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ssl_framework import keyed

# The first outputs of the reference implementation (Vigna, https://prng.di.unimi.it/splitmix64.c) for the seed 1234567.
REFERENCE = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
MASK = 2**64 - 1


def splitmix(state: int, n: int) -> list[int]:
    out: list[int] = []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append(z ^ (z >> 31))
    return out


def signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def test_the_naive_generator_is_the_reference():
    assert splitmix(1234567, 5) == REFERENCE


@pytest.mark.parametrize("seed", [0, 1, 1234567, 2**62, -1, -(2**63)])
def test_mix_of_one_number_is_the_first_output_of_splitmix64(seed: int):
    assert keyed.mix(seed).item() == signed(splitmix(seed & MASK, 1)[0])


def test_uniform_is_the_top_53_bits_of_splitmix64():
    key = torch.tensor([3, -7, 2**62])
    numbers = keyed.uniform(key, 5, 8)
    for row, k in zip(numbers, key, strict=True):
        state = int(keyed.mix(int(k), 5)) & MASK
        assert row.tolist() == [bits / 2**53 for bits in (x >> 11 for x in splitmix(state, 8))]


def test_mix_tells_apart_order_seeds_epochs_and_samples():
    keys = keyed.mix(torch.arange(20)[:, None, None], torch.arange(20)[None, :, None], torch.arange(50))
    assert keys.shape == (20, 20, 50)
    assert keys.dtype == torch.int64
    assert keys.unique().numel() == keys.numel()
    assert keyed.mix(1, 2) != keyed.mix(2, 1)


def test_uniform_numbers_are_uniform_and_unrelated():
    numbers = keyed.uniform(keyed.mix(0, 0, torch.arange(2000)), 1, 50)
    assert numbers.dtype == torch.float64
    assert 0 <= numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    counts = torch.histc(numbers.float(), bins=20, min=0, max=1)
    chi_square = ((counts - 5000) ** 2 / 5000).sum()
    assert chi_square < 43.8  # 99.9 % of chi-square with 19 degrees of freedom
    for other in (
        keyed.uniform(keyed.mix(0, 0, torch.arange(2000)), 2, 50),
        keyed.uniform(keyed.mix(1, 0, torch.arange(2000)), 1, 50),
    ):
        assert abs(np.corrcoef(numbers.flatten(), other.flatten())[0, 1]) < 0.015  # 4.7 standard errors
    assert torch.corrcoef(numbers.T).fill_diagonal_(0).abs().max() < 0.11  # columns of the same keys


def test_a_number_does_not_depend_on_its_batch_or_on_how_many_are_drawn():
    key = keyed.mix(0, 3, torch.arange(64))
    whole = keyed.uniform(key, 9, 12)
    assert torch.equal(keyed.uniform(key[17:19], 9, 5), whole[17:19, :5])
    assert torch.equal(keyed.uniform(key.flip(0), 9, 12), whole.flip(0))
    assert torch.equal(keyed.normal(key[5:6], 9, 3), keyed.normal(key, 9, 3)[5:6])


def test_normal_numbers_are_normal():
    numbers = keyed.normal(keyed.mix(0, 0, torch.arange(2000)), 1, 50)
    assert abs(numbers.mean()) < 0.015
    assert abs(numbers.std() - 1) < 0.01
    assert abs((numbers < -1.959964).double().mean() - 0.025) < 0.0025
    assert numbers.isfinite().all()


def test_permutation_is_one_and_belongs_to_its_numbers():
    order = keyed.permutation(1000, 7, 3)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert np.array_equal(order, keyed.permutation(1000, 7, 3))
    others = [keyed.permutation(1000, 7, 4), keyed.permutation(1000, 8, 3), np.arange(1000)]
    assert all((order == other).mean() < 0.01 for other in others)


def test_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(1)
    np.random.seed(1)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = keyed.normal(keyed.mix(0, torch.arange(4)), 0, 3), keyed.permutation(50, 1)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(legacy, np.random.get_state()[1])
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(first[0], keyed.normal(keyed.mix(0, torch.arange(4)), 0, 3))
    assert np.array_equal(first[1], keyed.permutation(50, 1))


@pytest.mark.parametrize("parts", [(0,), (1, 2, 3), (-1, 2**63 - 1), (-(2**63), 7, 0, 5)])
def test_plain_numbers_mix_like_tensors(parts: tuple[int, ...]):
    assert keyed.mix_numbers(*parts) == keyed.mix(*parts).item()
    assert keyed.mix_numbers(*parts) == keyed.mix(*(torch.tensor(part) for part in parts)).item()


def test_reseeding_is_torchs_own():
    keyed.reseed(torch.device("cpu"), 3, 4)
    ours = torch.rand(3)
    torch.manual_seed(keyed.mix_numbers(3, 4))
    assert torch.equal(ours, torch.rand(3))


def test_a_key_of_a_gpu_is_drawn_from_there():
    """A number beside the key had moved the hash to the CPU: no mask could be drawn on a GPU."""
    with FakeTensorMode():
        key = torch.empty(3, dtype=torch.int64, device="cuda")
        assert keyed.mix(key, 5).device == keyed.mix(5, key, 3).device == key.device
        assert keyed.uniform(key, 5, 2).device == key.device
