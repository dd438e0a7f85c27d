"""`python -m anyshape`, the same as the command `anyshape`."""

import sys

from anyshape.cli.main import main

sys.exit(main())
