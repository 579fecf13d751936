"""How often, and how long."""

from dataclasses import dataclass

from router.limits import Timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """Every wait of the agent, in seconds."""

    heartbeat: float = 30.0
    """Between two looks at the base and the files. A round of attestations of all that is loaded begins then,
    if the one before is over."""
    looking: float = 0.05
    """The most of the engine's time that rounds take: after a look there is none for 19 times as long."""
    republish: float = 3600.0
    """An unchanged finding is signed into the log again after this long: proof stays fresh, the log small."""
    poll: float = 20.0
    """How long one read of the feed may wait for news."""
    retry: float = 1.0
    """After the control plane did not answer."""
    alive: float = 5.0
    """Between two words to the control plane that the agent is there."""
    start_limit: float = 900.0
    """From start to answering: half a minute on a CPU, many for a large model from a cold disk."""
    backoff: tuple[float, float] = (1.0, 60.0)
    """First and longest pause before a restart or another try of a fetch, a load or a look; it doubles each
    time."""
    afresh: tuple[float, float] = (60.0, 3600.0)
    """First and longest pause between two fresh boots for versions that do not answer as themselves."""
    steady: float = 60.0
    """A boot that lived this long was not a failed start."""
    tries: int = 8
    """Loads or looks at a version that vLLM failed in a row, ``backoff`` apart (two minutes), until a fresh
    boot may do better."""
    misses: int = 3
    """Attempts in a row without any answer until the engine counts as hung, is killed and started again."""
    answer: float = 30.0
    """For an answer of an engine that has answered before; the first ones of a boot may compile kernels. An
    engine that makes tokens for others meanwhile is busy and not hung, however long a probe has to wait."""
    settle: float = 0.3
    """Without news, after a load, until the others are looked at again, four times that at most: whoever
    promoted what was loaded gets its first answer without probes beside it (on a CPU, a probe's step is
    longer than the answer)."""
    goodbye: float = 5.0
    """For telling the control plane that the engine is down."""
    drain: float = 30.0
    """That requests under way get to finish before vLLM is stopped, where somebody waits for the agent."""
    answers: float = Timeouts().whole
    """The same for a boot that is renewed: as long as a router lets an answer last, and so all that run."""
    quiet: float = 0.3
    """Without any request until a drained engine is stopped: by then routers have heard (their feed is looked
    at every 50 ms) and what they had sent has arrived."""
    merge_again: float = 60.0
    """After a merge that failed: it costs a whole base of memory and disk each time."""
    patience: float = 300.0
    """That a fresh boot waits for other engines to serve what this one serves."""
