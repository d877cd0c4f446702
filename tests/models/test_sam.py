"""SAM's encoders compared with segment-anything's own."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention
from tiers import cases
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from roofseg.models import sam


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def encoder() -> sam.SamEncoder:
    torch.manual_seed(0)
    return sam.SamEncoder("sam_vit_b").eval()


def test_sam_position_embedding_resizes() -> None:
    embedding = torch.randn(1, 64, 64, 4)
    assert sam.resize_position_embedding(embedding, (64, 64)) is embedding
    assert sam.resize_position_embedding(embedding, (14, 28)).shape == (1, 14, 28, 4)
    flat = sam.resize_position_embedding(torch.full((1, 64, 64, 4), 0.25), (14, 28))
    torch.testing.assert_close(flat, torch.full((1, 14, 28, 4), 0.25))
    # An embedding that depends on the row alone still does.
    rows = torch.linspace(0, 1, 64).view(1, 64, 1, 1).expand(1, 64, 64, 4)
    resized = sam.resize_position_embedding(rows, (14, 28))
    assert (resized.diff(dim=1) > 0).all()
    torch.testing.assert_close(resized, resized[:, :, :1].expand_as(resized))


# The published arguments (segment_anything/build_sam.py).
PUBLISHED = {
    "sam_vit_b": {"embed_dim": 768, "depth": 12, "num_heads": 12, "indices": (2, 5, 8, 11)},
    "sam_vit_l": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "indices": (5, 11, 17, 23)},
}


def metas_encoder(name: str, depth: int | None = None) -> ImageEncoderViT:
    """segment-anything's encoder without values, with its first ``depth`` blocks (None: all)."""
    given = PUBLISHED[name]
    with torch.device("meta"):
        return ImageEncoderViT(
            embed_dim=given["embed_dim"],
            depth=depth or given["depth"],
            num_heads=given["num_heads"],
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=given["indices"],
        ).eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_sam_encoders_have_metas_weights(name: str) -> None:
    with torch.device("meta"):
        ours = sam.SamEncoder(name).state_dict()
    theirs = metas_encoder(name).state_dict()
    assert {key: each.shape for key, each in ours.items()} == {
        key: each.shape for key, each in theirs.items()
    }


@pytest.fixture(
    scope="module", params=["sam_vit_b", pytest.param("sam_vit_l", marks=pytest.mark.whole)]
)
def published(request: pytest.FixtureRequest) -> tuple[sam.SamEncoder, ImageEncoderViT]:
    """Ours and segment-anything's own encoder, with the same weights (one copy of them).

    The blocks up to the first that attends globally, for time.
    """
    torch.manual_seed(0)
    with torch.device("meta"):
        ours = sam.SamEncoder(request.param).eval()
    depth = ours.skips[0] + 1
    ours.blocks = ours.blocks[:depth]
    ours.to_empty(device="cpu")
    for name, parameter in ours.named_parameters():
        # Normalisations start as identities; the tables of positions matter more than usual.
        scale = 0.3 if "rel_pos" in name else 0.02
        nn.init.ones_(parameter) if _is_scale(name) else nn.init.normal_(parameter, std=scale)
    theirs = metas_encoder(request.param, depth)
    theirs.load_state_dict(ours.state_dict(), assign=True)
    return ours, theirs


def _is_scale(name: str) -> bool:
    return name.endswith(("norm1.weight", "norm2.weight", "neck.1.weight", "neck.3.weight"))


@pytest.mark.parametrize("size", cases([(64, 96), (240, 272)], whole=[(240, 272)]), ids=str)
def test_sam_encoder_is_metas_at_another_size(
    published: tuple[sam.SamEncoder, ImageEncoderViT], size: tuple[int, int]
) -> None:
    """Compare with a resized position embedding, for part of a window and for several windows."""
    ours, theirs = published
    tokens = size[0] // 16, size[1] // 16
    theirs.pos_embed = nn.Parameter(sam.resize_position_embedding(ours.pos_embed, tokens).detach())
    x = images(1, 3, *size)

    def run(net: nn.Module, bfloat16: bool) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out = net(x)
        return (out[-1] if net is ours else out).float()

    exact = run(theirs, False)
    assert exact.shape == (1, 256, *tokens)
    torch.testing.assert_close(run(ours, False), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(run(ours, True), run(ours, True))
    assert {type(block.attn) for block in ours.blocks} == {sam.FusedAttention}
    # bfloat16 has 8 bits; segment-anything's own result has a similar error.
    error, their_error = ((run(net, True) - exact).std() for net in (ours, theirs))
    assert error < 0.02 * exact.std()
    assert error < 1.2 * their_error


def attentions(height: int, width: int) -> tuple[sam.FusedAttention, Attention]:
    """Ours and segment-anything's, in float64, with the same weights for ``height`` x ``width``."""
    torch.manual_seed(0)
    ours, theirs = (
        kind(32, num_heads=2, use_rel_pos=True, input_size=(height, width)).double()
        for kind in (sam.FusedAttention, Attention)
    )
    nn.init.normal_(theirs.rel_pos_h)
    nn.init.normal_(theirs.rel_pos_w)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


# Batch, height and width: several windows; resized relative positions; more than one slice.
TOKENS = [(5, 14, 14), (2, 5, 9), (2, 40, 30)]


@pytest.mark.parametrize("tokens", TOKENS, ids=str)
def test_sam_attention_is_metas(
    tokens: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = attentions(14, 14)
    x = torch.randn(*tokens, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(x)
        with Operators() as used:
            out = ours(x)
        torch.testing.assert_close(out, expected)
        assert out.shape == x.shape
        monkeypatch.setattr(sam, "SLICE", 1)  # each head in a slice of its own
        assert torch.equal(ours(x), out)
    # Fused: the matrix over all pairs of tokens is never stored.
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in used.names
    assert "aten::_softmax" not in used.names


class Operators(TorchDispatchMode):
    """Records which operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("tokens", TOKENS[:2], ids=str)
def test_sam_attention_has_metas_gradients(tokens: tuple[int, int, int]) -> None:
    x = torch.randn(*tokens, 32, dtype=torch.float64)
    weights = torch.randn_like(x)
    gradients = []
    for net in attentions(14, 14):
        inputs = x.clone().requires_grad_()
        (net(inputs) * weights).sum().backward()
        gradients.append({"x": inputs.grad} | {n: p.grad for n, p in net.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[1].items():
        assert expected.abs().max() > 0, name
        torch.testing.assert_close(gradients[0][name], expected, msg=lambda m, n=name: f"{n}: {m}")


def test_sam_fused_attention_has_the_gradients_of_the_plain_formula() -> None:
    """With gradients only GPUs use the fused attention, but its code also runs on a CPU."""
    heads, height, width, channels = 3, 4, 5, 6
    shapes = [(heads, height * width, n) for n in (channels, channels, channels, height, width)]
    torch.manual_seed(0)
    parts = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    q, k, v, rel_h, rel_w = parts
    bias = rel_h.repeat_interleave(width, dim=-1) + rel_w.tile(height)
    plain = (q @ k.transpose(1, 2) / channels**0.5 + bias).softmax(-1) @ v
    fused = sam._attend(*parts)
    torch.testing.assert_close(fused, plain)
    weights = torch.randn_like(plain)
    for found, expected in zip(
        torch.autograd.grad((fused * weights).sum(), parts),
        torch.autograd.grad((plain * weights).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_sam_skips_are_blocks_3_6_9_12(encoder: sam.SamEncoder) -> None:
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _, __, out, number=number: seen.__setitem__(number, out))
        for number, block in enumerate(encoder.blocks, start=1)
    ]
    with torch.no_grad():
        features = encoder(images(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert len(features) == 5
    for number, feature in zip((3, 6, 9, 12), features, strict=False):
        assert torch.equal(feature, seen[number])
        assert feature.shape == (1, 4, 4, 768)
    # These blocks attend globally; the others within windows of 14 tokens.
    windows = [block.window_size for block in encoder.blocks]
    assert windows == [14, 14, 0] * 4


def test_sam_position_reaches_a_random_encoder(encoder: sam.SamEncoder) -> None:
    with torch.no_grad():
        first = encoder(torch.zeros(1, 3, 64, 64))[0].flatten(1, 2)
    assert (first[0, 1:] - first[0, 0]).abs().amax(dim=1).min() > 0
