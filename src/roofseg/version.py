"""The version that outputs are marked with."""

VERSION = "0.1.0"  # as in pyproject.toml
