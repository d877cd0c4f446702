"""Make one prior's weights: `python -m stages.make_prior NAME` writes weights/NAME.safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path

from roofseg.priors import PRIORS, make_prior
from stages import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PRIORS, help="the prior to make")
    make_prior(parser.parse_args().name, Path("weights"))


if __name__ == "__main__":
    run(main)
