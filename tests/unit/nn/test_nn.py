import pytest
import torch
from torch import nn

from ssl_framework import keyed
from ssl_framework.nn import FullPrecision, Teacher, TokenDecoder, on_tokens, random_mask, sincos_positions


def test_teacher_equals_the_closed_form_after_k_steps():
    student = nn.Linear(3, 2).double()
    teacher = Teacher(student, momentum=0.9, final_momentum=0.9)
    expected = student.weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            student.weight.add_(step + 1.0)
        expected = 0.9 * expected + 0.1 * student.weight.detach()
        teacher.follow(progress=0.0)
    torch.testing.assert_close(teacher.module.weight, expected, rtol=1e-12, atol=0)


def test_teacher_momentum_rises_on_a_cosine_to_one():
    student = nn.Linear(1, 1, bias=False).double()
    teacher = Teacher(student, momentum=0.5)
    with torch.no_grad():
        student.weight.fill_(1.0)
        for progress, momentum in ((0.0, 0.5), (0.5, 0.75), (1.0, 1.0)):
            teacher.module.weight.fill_(0.0)
            teacher.follow(progress)
            assert teacher.module.weight.item() == pytest.approx(1 - momentum)


def test_teacher_shares_nothing_with_its_student_and_has_no_gradient():
    student = nn.Linear(3, 2)
    teacher = Teacher(student, 0.99)
    assert teacher.module.weight.data_ptr() != student.weight.data_ptr()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher(torch.randn(1, 3)).requires_grad
    assert set(teacher.state_dict()) == {"module.weight", "module.bias"}


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_teacher_refuses_a_momentum_that_is_none(momentum: float):
    with pytest.raises(ValueError, match="momentum"):
        Teacher(nn.Linear(1, 1), momentum)


def test_mask_hides_the_exact_share_and_keeps_the_rest_once():
    keep, mask = random_mask(keyed.mix(0, torch.arange(50)), 16, 0.75)
    assert keep.shape == (50, 4)
    assert (mask.sum(1) == 12).all()
    for row in range(50):
        assert len(set(keep[row].tolist())) == 4
        assert not mask[row, keep[row]].any()


def test_mask_belongs_to_the_sample_and_not_to_the_batch():
    key = keyed.mix(0, torch.arange(20))
    whole, part = random_mask(key, 16, 0.5)[0], random_mask(key[7:9], 16, 0.5)[0]
    assert torch.equal(whole[7:9], part)
    assert len({tuple(row) for row in whole.tolist()}) > 15


def test_masks_hide_every_token_equally_often():
    _, mask = random_mask(keyed.mix(1, torch.arange(4000)), 8, 0.5)
    assert (mask.float().mean(0) - 0.5).abs().max() < 0.04  # 5 standard deviations


@pytest.mark.parametrize(
    ("tokens", "ratio", "says"), [(16, 0.0, "mask_ratio"), (16, 1.0, "mask_ratio"), (1, 0.5, "patch_size")]
)
def test_mask_refuses(tokens: int, ratio: float, says: str):
    with pytest.raises(ValueError, match=says):
        random_mask(torch.zeros(2, dtype=torch.int64), tokens, ratio)
    with pytest.raises(ValueError, match=r"Views\.key"):
        random_mask(None, 16, 0.5)


def test_criterion_runs_in_float32_under_autocast_and_keeps_float64():
    seen: list[torch.dtype] = []

    def criterion(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        product = a @ b
        seen.append(product.dtype)
        return product.sum()

    module = FullPrecision(criterion)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(torch.ones(2, 2, dtype=torch.bfloat16), torch.ones(2, 2))
    module(torch.ones(2, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64))
    assert seen == [torch.float32, torch.float64]


def test_decoder_puts_tokens_where_they_belong():
    torch.manual_seed(0)
    decoder = TokenDecoder(6, (2, 4), 3, dim=8, depth=1, num_heads=2).eval()
    tokens, keep = torch.randn(2, 3, 6), torch.tensor([[0, 5, 2], [7, 1, 3]])
    out = decoder(tokens, keep, torch.zeros(2, 6))
    order = torch.tensor([2, 0, 1])
    again = decoder(tokens[:, order], keep[:, order], torch.zeros(2, 6))  # the order in which they are given says nothing
    assert out.shape == (2, 8, 3)
    torch.testing.assert_close(out, again)
    moved = decoder(tokens, keep.roll(1, dims=1), torch.zeros(2, 6))
    assert not torch.allclose(out, moved, atol=1e-3)


def test_positions_are_those_of_the_paper_and_differ():
    table = sincos_positions((4, 3), 8)
    assert table.shape == (12, 8)
    row, column, frequency = 2, 1, 1
    omega = 10_000.0 ** -(frequency / 2)
    place = table[row * 3 + column]
    sin_row, cos_row = torch.sin(torch.tensor(row * omega)), torch.cos(torch.tensor(row * omega))
    assert place[:4].tolist() == pytest.approx(
        [torch.sin(torch.tensor(2.0)).item(), sin_row.item(), torch.cos(torch.tensor(2.0)).item(), cos_row.item()], abs=1e-6
    )
    assert len({tuple(r) for r in table.tolist()}) == 12
    assert sincos_positions((5,), 7)[:, -1].eq(0).all()
    with pytest.raises(ValueError, match="too small"):
        sincos_positions((2, 2), 3)


def test_a_head_on_single_tokens_sees_few_shapes():
    seen: set[tuple[int, ...]] = set()

    class Noting(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            seen.add(tuple(input.shape))
            return super().forward(input)

    head, tokens = Noting(5, 3).double(), torch.randn(4, 10, 5, dtype=torch.float64, requires_grad=True)
    for count in (0, 1, 7, 20, 21, 22, 40):
        mask = (torch.randperm(40, generator=torch.Generator().manual_seed(count)) < count).view(4, 10)
        rows = on_tokens(head, tokens, mask)
        assert rows.shape == (count, 3)
        torch.testing.assert_close(rows, nn.functional.linear(tokens[mask], head.weight, head.bias))
        (gradient,) = torch.autograd.grad(rows.sum(), tokens)
        torch.testing.assert_close(gradient, mask[..., None] * head.weight.sum(0))
    assert seen == {(rows, 5) for rows in (0, 5, 10, 20, 25, 40)}
