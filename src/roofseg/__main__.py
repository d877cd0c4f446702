"""``python -m roofseg``: see `roofseg.cli`."""

from roofseg.cli import main

if __name__ == "__main__":
    main()
