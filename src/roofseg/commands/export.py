"""Write a model as one ONNX file, from 8-bit RGB to probabilities, and check it against torch.

`roofseg predict --model FILE.onnx` runs it, and so does any program that runs ONNX: its input is
`images` (B, P, P, 3) uint8, its output `probability` (B, P, P) float32, with P the size of the
patches that the model was trained on. The normalisation is inside.

Exit status: 0 the file was written; 2 an error that the message explains.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from roofseg.commands.arguments import local_path, number
from roofseg.mapping.onnx_predictor import TOLERANCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        type=Path,
        help="a model's folder, such as models/unet_imagenet",
    )
    parser.add_argument(
        "--out", required=True, type=local_path, metavar="FILE.onnx", help="the file to write"
    )
    parser.add_argument(
        "--tolerance",
        type=number(0),
        default=TOLERANCE,
        help=f"largest difference of a probability to torch's (default {TOLERANCE:g})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.onnx if it exists")


def main(args: argparse.Namespace) -> None:
    # Imports torch, which takes seconds: `--help` must not wait for it.
    from roofseg.mapping.onnx_export import export

    done = export(args.model, args.out, tolerance=args.tolerance, overwrite=args.overwrite)
    print(
        f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, windows of {done.window} px; "
        f"probabilities differ from torch's by at most {done.difference:.1g}"
    )
