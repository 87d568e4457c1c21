"""`python -m symphony_es.cli`."""

import sys

from symphony_es.cli.main import main

sys.exit(main())
