"""Export a model as an ONNX file, checked against torch.

`roofseg predict --model FILE.onnx` runs the file, and so does any program that runs ONNX. Its input
is `images`, (B, P, P, 3) uint8 RGB; its output is `probability`, (B, P, P) float32, where P is the
size of the patches that the model was trained on. The file includes the normalisation.
"""

from __future__ import annotations

import argparse

from roofseg.commands.arguments import local_path, number
from roofseg.mapping.onnx_predictor import TOLERANCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        type=local_path,
        help="a model's folder, such as models/unet_imagenet",
    )
    parser.add_argument(
        "--out", required=True, type=local_path, metavar="FILE.onnx", help="the file to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.onnx if it exists")
    parser.add_argument(
        "--tolerance",
        type=number(0),
        default=TOLERANCE,
        metavar="P",
        help="largest difference from torch in a probability (default: %(default)s)",
    )


def main(args: argparse.Namespace) -> None:
    # Imports torch, which takes seconds: `--help` must not wait for it.
    from roofseg.mapping.onnx_export import export

    done = export(args.model, args.out, tolerance=args.tolerance, overwrite=args.overwrite)
    print(
        f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, windows of {done.window} px; "
        f"probabilities differ from torch's by at most {done.difference:.1g}"
    )
