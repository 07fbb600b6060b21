"""`python -m vqtool`, and `torchrun -m vqtool`."""

import sys

from vqtool.cli import main

if __name__ == "__main__":
    sys.exit(main())
