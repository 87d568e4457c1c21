"""`python -m symphony_es`: the command line, as `symphony-es`."""

import sys

from symphony_es.cli.entry import main

sys.exit(main())
