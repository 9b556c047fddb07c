"""AIM: El-Nouby et al., 2024, https://arxiv.org/abs/2401.08541."""

from typing import Unpack

import torch
from lightly.models.modules.heads_timm import AIMPredictionHead
from torch import Tensor

from ssl_framework.nn import mean_over_processes, normalized_patches, on_tokens, prefix_lengths, sincos_positions, widen
from ssl_framework.pretext.base import Card, PretextModule, Training, require_tokens
from ssl_framework.types import Encoder, Step, Views


class AIM(PretextModule):
    """Patches are read row by row, and each is predicted from those before it.

    El-Nouby et al., 2024, https://arxiv.org/abs/2401.08541. The first patches, another number in every sample, see each other
    and are not predicted, so that the encoder can do without the pattern of attention later: downstream all tokens see all.
    Each predicted patch counts the same, in whichever sample. The paper has no class token; here it belongs to the prefix, and
    nothing ever asks for its last output: measure the mean of the tokens, ``encoder.pool=mean``. The paper measures the mean
    of the last six layers of a frozen encoder by attention.

    Args:
        encoder: a `TokenEncoder`.
        head_dim: width of the perceptron that predicts; 2048, whatever the encoder's (lightly's head, which its authors
            checked with the paper's: https://github.com/lightly-ai/lightly/pull/1479).
        head_depth: its residual blocks; 12 (the same).
        normalize_target: predict patches normalised by their own mean and standard deviation (section 3.1).
        training: see `PretextModule`.
    """

    card = Card(
        family="generative",
        group="autoregressive",
        target="pixels of the next patch",
        prevents_collapse="nothing to prevent: the target is the input",
        judged_by="attentive probe",
        paper="https://arxiv.org/abs/2401.08541",
        views=1,
        needs_tokens=True,
        class_token=False,
        positions="sincos",
    )

    def __init__(
        self,
        encoder: Encoder,
        head_dim: int = 2048,
        head_depth: int = 12,
        normalize_target: bool = True,
        **training: Unpack[Training],
    ) -> None:
        tokens = require_tokens(encoder, "AIM")
        super().__init__(encoder, **training)
        self.normalize_target = normalize_target
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(tokens.grid, encoder.embed_dim))  # (N, D)
        self.head = AIMPredictionHead(encoder.embed_dim, tokens.patch_dim, hidden_dim=head_dim, num_blocks=head_depth)

    def forward(self, views: Views) -> Step:
        """Encode all, each token seeing what is before it; each behind the prefix speaks of the next patch."""
        x = views.global_crops[0]  # (B, ...)
        prefix = prefix_lengths(views.key, self.encoder.num_tokens)  # (B,)
        seen = self.encoder(x, prefix=prefix)
        places = torch.arange(1, self.encoder.num_tokens, device=x.device)  # of the patches that can be predicted
        due = places >= prefix[:, None]  # (B, N - 1)

        before = (seen.tokens + self.positions.to(seen.tokens.dtype))[:, :-1]  # (B, N - 1, D)
        painted, target = on_tokens(self.head, before, due), self._target(x)[:, 1:][due]  # (M, P) of M due
        error = (widen(painted) - widen(target)).square().mean(dim=-1)  # (M,)
        loss = error.sum() / mean_over_processes(due.sum().to(error.dtype))
        return Step(loss, embedding=seen.pooled)

    def _target(self, x: Tensor) -> Tensor:
        patches = self.encoder.patchify(x)  # (B, N, P)
        return normalized_patches(patches) if self.normalize_target else patches
