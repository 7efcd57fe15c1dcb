"""Settings for the whole suite: the Hypothesis profiles (`make proof` chooses the second)."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings

_COMMON: dict[str, Any] = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("default", derandomize=True, **_COMMON)
settings.register_profile("proof", max_examples=2_000, **_COMMON)
settings.load_profile("default")
