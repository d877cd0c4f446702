"""The ViT-B and ViT-L image encoders of SAM (Kirillov et al. 2023, "Segment Anything").

They are Meta's (package segment-anything) at any size that is a multiple of 16 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F  # noqa: N812 (the name that all PyTorch code uses)
from segment_anything.modeling import ImageEncoderViT  # type: ignore[import-untyped]
from segment_anything.modeling.image_encoder import Attention  # type: ignore[import-untyped]
from torch import nn

from roofseg.models.decoders import FeatureShapes

TOKEN = 16  # pixels along the side of one token
NECK = 256  # channels of the encoder's output
# Size of a slice of attention on a CPU (`_attend_in_slices`). At 1024 px and two threads a slice
# holds 1024 queries of one head, and its bias takes 8 MB in bfloat16. Slices of half and of twice
# that size were slower.
QUERIES = 1024
SLICE = 2**21  # elements of bias per thread
# SAM's pixel_mean and pixel_std for RGB in 0..255 (segment_anything/build_sam.py), on [0, 1].
STATISTICS = (
    tuple(value / 255 for value in (123.675, 116.28, 103.53)),
    tuple(value / 255 for value in (58.395, 57.12, 57.375)),
)


@dataclass(frozen=True)
class Size:
    """The size of a SAM encoder, as in segment_anything/build_sam.py."""

    width: int  # channels of a token
    depth: int  # blocks
    heads: int
    skips: tuple[int, ...]  # the blocks that attend globally, counted from 0; these are the skips


SIZES = {
    "sam_vit_b": Size(width=768, depth=12, heads=12, skips=(2, 5, 8, 11)),
    "sam_vit_l": Size(width=1024, depth=24, heads=16, skips=(5, 11, 17, 23)),
}


class SamEncoder(ImageEncoderViT):
    """A SAM image encoder (a key of ``SIZES``) for any input size that is a multiple of 16 pixels.

    The parameters keep the prior's native size (64x64 tokens, 1024 px) and each call resizes the
    position embedding and the attention's relative positions, so one weights file fits every patch
    size. Parameter names are those of Meta's checkpoint without the prefix ``image_encoder.``.
    """

    def __init__(self, name: str) -> None:
        size = SIZES[name]
        super().__init__(
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=size.skips,
        )
        self.skips = size.skips
        self.shapes = FeatureShapes((size.width,) * 4, (TOKEN,) * 4, NECK, TOKEN)
        # Meta leaves the embedding at zero, for a checkpoint to fill. Without a prior, zeros would
        # tell a frozen encoder nothing about the position of a token. 0.02 is the usual scale of
        # ViT embeddings (Dosovitskiy et al. 2021; timm). torch's own initialisation of the linear
        # layers has nearly that deviation (ViT-B: 1/sqrt(3*768) = 0.021) and is kept.
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for block in self.blocks:
            block.attn = FusedAttention.from_attention(block.attn)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Encode normalised images.

        Shape:
            - x: (B, 3, H, W), H and W multiples of 16
            - returns: four skips (B, H/16, W/16, C), the outputs of the global blocks (of ViT-B:
              3, 6, 9 and 12, counted from 1, with C = 768), then the neck's output
              (B, 256, H/16, W/16)
        """
        tokens = self.patch_embed(x)  # (B, h, w, C)
        tokens = tokens + resize_position_embedding(self.pos_embed, tokens.shape[1:3])
        features = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.skips:
                features.append(tokens)
        features.append(self.neck(tokens.permute(0, 3, 1, 2)))
        return features


class FusedAttention(Attention):
    """segment-anything's attention, computed by torch's fused kernels.

    Parameters and results are those of segment-anything. A head computes
    softmax(q k^T / sqrt(C) + b) v. For a query at row y and column x and a key at row i and column
    j the bias b is rel_h[y, i] + rel_w[x, j] (Li et al. 2022, "MViTv2", equation 4).
    segment-anything writes the softmax of all heads to memory several times: 805 MB each in float32
    in a global block at 1024 px. The fused kernels compute it in blocks, and take b as a mask in
    the dtype of q.

    The mask can be avoided: with rel_h and rel_w appended to q / sqrt(C), and each key's row and
    column (one-hot) appended to k, q k^T includes b, but is three times as wide. The global blocks
    then took a CPU twice as long. The encoder took an H100 up to a sixth less time in bfloat16, but
    a quarter more in float32.

    On a CPU with gradients, segment-anything's own code runs: no fused CPU kernel takes a mask with
    a gradient, and without a mask training took nearly twice as long in bfloat16.
    """

    @classmethod
    def from_attention(cls, attention: Attention) -> FusedAttention:
        """The fused form of ``attention``, with the same parameters."""
        tables = attention.rel_pos_h, attention.rel_pos_w  # (2 * size - 1, C) each
        height, width = ((len(table) + 1) // 2 for table in tables)
        # On the meta device, initialisation draws no random numbers.
        with torch.device("meta"):
            fused = cls(
                attention.qkv.in_features,
                attention.num_heads,
                use_rel_pos=True,
                input_size=(height, width),
            )
        fused.load_state_dict(attention.state_dict(), assign=True)
        return fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attention over all H * W tokens; input and output are (B, H, W, dim)."""
        on_cpu = x.device.type == "cpu"
        if on_cpu and torch.is_grad_enabled():
            return super().forward(x)
        batch, height, width, _ = x.shape
        q, k, v = (  # (B * heads, H * W, C) each
            self.qkv(x)
            .view(batch, height * width, 3, self.num_heads, -1)
            .permute(2, 0, 3, 1, 4)
            .reshape(3, batch * self.num_heads, height * width, -1)
            .contiguous()
        )
        grid = q.unflatten(1, (height, width))
        rel_h = torch.einsum("nyxc,yic->nyxi", grid, _relative_positions(self.rel_pos_h, height))
        rel_w = torch.einsum("nyxc,xjc->nyxj", grid, _relative_positions(self.rel_pos_w, width))
        attend = _attend_in_slices if on_cpu else _attend
        out = attend(q, k, v, rel_h.flatten(1, 2), rel_w.flatten(1, 2))
        out = out.unflatten(0, (batch, self.num_heads)).transpose(1, 2)
        return self.proj(out.reshape(x.shape))


def _relative_positions(table: torch.Tensor, size: int) -> torch.Tensor:
    """The embeddings of each query's position relative to each key, on one axis: (size, size, C).

    ``table`` (2 n - 1, C) holds the embeddings of the offsets -(n - 1) to n - 1, and is resized if
    size is not n. Unlike segment-anything's ``get_rel_pos`` this makes its index on the device: an
    H100 spent a sixth of its time waiting for copies from host memory.
    """
    if len(table) != 2 * size - 1:
        table = F.interpolate(table.T[None], size=2 * size - 1, mode="linear")[0].T
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position + size - 1]


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel_h: torch.Tensor, rel_w: torch.Tensor
) -> torch.Tensor:
    """Attention with the bias of relative positions.

    Shape:
        - q: (N, Q, C); k, v: (N, H * W, C); rel_h: (N, Q, H); rel_w: (N, Q, W)
        - returns: (N, Q, C)
    """
    bias = (rel_h[..., :, None] + rel_w[..., None, :]).flatten(-2)
    # The fused kernels expect a batch dimension before the heads.
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=bias[None])[0]


def _attend_in_slices(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel_h: torch.Tensor, rel_w: torch.Tensor
) -> torch.Tensor:
    """Compute `_attend` for a few heads and at most ``QUERIES`` queries at a time.

    The bias of a slice is still in the CPU's cache when the kernel reads it, and reuses the memory
    of the slice before. The number of heads in a slice depends on the number of threads and changes
    no bit of the result.
    """
    count, tokens, _ = q.shape
    queries = min(tokens, QUERIES)
    heads = max(1, SLICE * torch.get_num_threads() // (queries * tokens))
    out = torch.empty_like(q)
    for first, query in product(range(0, count, heads), range(0, tokens, queries)):
        chosen = slice(first, first + heads)
        part = chosen, slice(query, query + queries)
        out[part] = _attend(q[part], k[chosen], v[chosen], rel_h[part], rel_w[part])
    return out


def resize_position_embedding(
    embedding: torch.Tensor, size: torch.Size | tuple[int, int]
) -> torch.Tensor:
    """Resize a position embedding (1, H, W, C) to ``size`` tokens (h, w), unless it has that size.

    Bicubic with antialiasing, as in timm's ``resample_abs_pos_embed``: a token of a small patch
    gets the mean of the positions that it covers, not a sample of them.
    """
    if embedding.shape[1:3] == tuple(size):
        return embedding
    # In float32 even under autocast: in half precision resizing would round the parameter.
    resized = F.interpolate(
        embedding.permute(0, 3, 1, 2).float(), size=tuple(size), mode="bicubic", antialias=True
    )
    return resized.permute(0, 2, 3, 1).to(embedding.dtype)
