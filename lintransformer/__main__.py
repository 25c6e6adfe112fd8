"""``python -m lintransformer``: the command line."""
import sys

from lintransformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
