"""How often, and how long."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """Every wait of the agent, in seconds."""

    heartbeat: float = 30.0
    """Between two attestations of everything that is loaded."""
    republish: float = 3600.0
    """An unchanged finding is signed into the log again after this long: proof stays fresh, the log small."""
    poll: float = 20.0
    """How long one read of the feed may wait for news."""
    retry: float = 1.0
    """After the control plane did not answer."""
    start_limit: float = 900.0
    """From start to answering: half a minute on a CPU, many for a large model from a cold disk."""
    backoff: tuple[float, float] = (1.0, 60.0)
    """First and longest pause before a restart; it doubles while boots end early."""
    steady: float = 60.0
    """A boot that lived this long was not a failed start."""
    misses: int = 3
    """Attempts in a row without any answer until the engine counts as hung, is killed and started again."""
    goodbye: float = 5.0
    """For telling the control plane that the engine is down."""
