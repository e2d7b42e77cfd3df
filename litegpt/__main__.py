"""`python -m litegpt` is the `litegpt` command."""

import sys

from litegpt.command import main

sys.exit(main())
