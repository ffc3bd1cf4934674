"""How often a run sends a heartbeat, and after which silence the server marks it as crashed."""

from datetime import timedelta

BEAT_SECONDS = 30  # Prefect's minimum; as in prefect.toml, prefect.yaml and flows/infrastructure/
MISSED_BEATS = 3
SILENCE = timedelta(seconds=BEAT_SECONDS * MISSED_BEATS)
SILENT_IS_DEAD = "catdog: a run that has gone silent is dead"  # the name of the automation
