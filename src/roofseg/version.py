"""The version of the package, and the one that outputs are marked with."""

VERSION = "0.1.0"  # pyproject.toml reads it
