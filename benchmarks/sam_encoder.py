"""SAM's image encoder against segment-anything as published, on this machine's CPU."""

from __future__ import annotations

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from benchmarks.table import Row, alternate, faster
from roofseg.models.device import resolve_precision
from roofseg.models.sam import SamEncoder

SIZE = 1024  # pixels, SAM's own
ROUNDS = 3


def rows() -> list[Row]:
    """One row in the precision of training here, if that is bfloat16, and one in float32."""
    torch.manual_seed(0)
    ours = SamEncoder("sam_vit_b").eval()
    for block in ours.blocks:  # they are zero without a checkpoint
        nn.init.normal_(block.attn.rel_pos_h, std=0.1)
        nn.init.normal_(block.attn.rel_pos_w, std=0.1)
    published = ImageEncoderViT(
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=ours.skips,
    ).eval()
    published.load_state_dict(ours.state_dict())
    image = torch.randn(1, 3, SIZE, SIZE)

    def encode(net: nn.Module, bfloat16: bool = False) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            features = net(image)
        return (features[-1] if net is ours else features).float()

    exact = encode(published)

    def line(bfloat16: bool) -> Row:
        def fast() -> None:
            encode(ours, bfloat16)

        def plain() -> None:
            encode(published)

        error = (encode(ours, bfloat16) - exact).std() / exact.std()
        what = (
            f"SAM encoder forward, one {SIZE} px image, {'bfloat16' if bfloat16 else 'float32'}, "
            f"CPU (output off by {error:.0e} of its deviation)"
        )
        times = alternate(fast, plain, rounds=ROUNDS)
        target = 2 if bfloat16 else None
        return faster(what, "segment-anything as published, float32", *times, target=target)

    has_bfloat16 = resolve_precision("auto", "cpu") == "bf16-mixed"
    return [line(bfloat16) for bfloat16 in ((True, False) if has_bfloat16 else (False,))]
