"""Property tests here measure nothing: two shared cores make any single example slow at times."""

from hypothesis import HealthCheck, settings

settings.register_profile("spop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spop")
