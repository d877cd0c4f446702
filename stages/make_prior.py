"""Make a prior that the project knows: `python -m stages.make_prior NAME` writes weights/NAME.*."""

from __future__ import annotations

from pathlib import Path

from roofseg.core.terminal import ArgumentParser
from roofseg.priors.catalogue import PRIORS, make_prior
from stages import run


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.make_prior", description=__doc__)
    parser.add_argument("name", choices=PRIORS, help="the prior to make")
    make_prior(parser.parse_args().name, Path("weights"))


if __name__ == "__main__":
    run(main)
