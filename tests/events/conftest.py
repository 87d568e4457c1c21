"""Makes `plain_data` importable for the tests of this folder, and the random ones repeatable on a slow machine."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("events", deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("events")
