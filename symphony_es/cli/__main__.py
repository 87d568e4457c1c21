"""`python -m symphony_es.cli`."""

import sys

from symphony_es.cli.entry import main

sys.exit(main())
