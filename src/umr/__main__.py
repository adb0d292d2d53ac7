"""`python -m umr` is `umr`."""

import sys

from umr.cli import main

sys.exit(main())
