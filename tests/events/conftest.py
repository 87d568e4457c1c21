"""Random tests of this folder do not fail because a machine is slow."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("events", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("events")
