"""How often a run sends a heartbeat, and when the server marks a run without one as crashed."""

from datetime import timedelta

# Prefect's minimum; as in prefect.toml, prefect.yaml and flows/infrastructure/
HEARTBEAT_SECONDS = 30
MISSED_HEARTBEATS = 3
HEARTBEAT_TIMEOUT = timedelta(seconds=HEARTBEAT_SECONDS * MISSED_HEARTBEATS)
CRASHED_AUTOMATION = "catdog: mark runs without heartbeats as crashed"
