"""What keeps versions out of one boot, for how long, and which of it a fresh boot may mend."""

import asyncio
from collections.abc import Mapping

from registry.digests import Digest
from registry.errors import TenonError
from registry.feed import State
from server.engines.chances import Chances
from server.engines.errors import EngineLoadFailed
from server.engines.pauses import Pause, Pauses
from server.engines.refetching import Refetching
from server.engines.state import Event, Report
from server.engines.suspects import Suspects


class Faults:
    """Some last as long as the boot: what vLLM refuses, and a slot that once behaved wrongly. Others are
    tried again, for vLLM says 500 of a bad adapter as of a disk that is full for a moment."""

    def __init__(
        self,
        *,
        pauses: tuple[float, float],
        tries: int,
        chances: Chances,
        suspects: Suspects,
        report: Report,
    ) -> None:
        """``pauses``: until the next try, the first and the longest, in seconds. After ``tries`` loads or
        looks in a row that vLLM failed, a version is stuck."""
        self._tries = tries
        self._chances = chances
        self._suspects = suspects
        self._report = report
        self._refetching = Refetching(pauses=pauses)
        self._unloaded = Pauses(*pauses)
        self._unusable = Pauses(*pauses)
        self._held: dict[Digest, Pause] = {}
        self._barred: Mapping[Digest, Pause] = {}
        self._refused: dict[Digest, str] = {}
        self._failed: dict[Digest, str] = {}
        self.stuck: frozenset[Digest] = frozenset()
        """vLLM goes on failing to load them or to answer for them, and a fresh boot may do better."""
        self.spoilt: frozenset[Digest] = frozenset()
        """They failed, and were recognised before, here or on another engine."""

    def turn(self, state: State) -> None:
        """A turn begins: what is due is held no more."""
        self._refetching.heard(state)
        self._held = {
            version: pause
            for pauses in (self._unloaded, self._refetching, self._unusable)
            for version, pause in pauses.waiting(_now()).items()
        }

    def bar(self, *, serving: bool) -> None:
        """``serving``: whether anybody is in service."""
        self._barred = self._suspects.barred(_now(), serving=serving)

    def weigh(self, elsewhere: frozenset[Digest]) -> None:
        """Which of them are worth a fresh boot now. ``elsewhere``: attested on other engines."""
        self.stuck = self.spoilt = frozenset()
        if self._chances.due:
            self.stuck = self._chances.left(
                self._unloaded.often(self._tries) | self._unusable.often(self._tries)
            )
            self.spoilt = frozenset(
                version for version in self._failed if self._chances.knows(version) or version in elsewhere
            )

    def spent(self) -> None:
        """The boot ends, for their sake or not."""
        if self.spoilt or self.stuck:
            self._chances.spent(self.stuck)

    @property
    def held(self) -> Mapping[Digest, Pause]:
        """Left alone for now."""
        return {**self._held, **self._barred}

    @property
    def failed(self) -> Mapping[Digest, str]:
        """A slot that once behaved wrongly is never trusted again."""
        return self._failed

    @property
    def unfit(self) -> dict[Digest, str]:
        """All that cannot be served in this boot or not now, with the reason."""
        return self._refused | self._failed | {version: pause.why for version, pause in self.held.items()}

    @property
    def unloaded(self) -> frozenset[Digest]:
        """vLLM did not take them the last time, and is to be asked once more."""
        return frozenset(self._unloaded.versions)

    @property
    def versions(self) -> frozenset[Digest]:
        """Versions that something may be wrong with, whether they are held or due: not those that could not
        be fetched."""
        paused = self._unloaded.versions | self._unusable.versions
        return frozenset(self._failed.keys() | paused | self._barred.keys())

    @property
    def hopeless(self) -> frozenset[Digest]:
        """Those of them that had fresh boots for themselves, in vain, and were never recognised here."""
        had = {version for version in self.versions if self._chances.had(version)} | self._barred.keys()
        return frozenset(version for version in had if not self._chances.knows(version))

    def is_suspect(self, version: Digest) -> bool:
        return self._suspects.is_suspect(version)

    def begins(self, version: Digest) -> None:
        """vLLM is about to be asked for it."""
        self._suspects.begins(version)

    def survived(self, version: Digest) -> None:
        """vLLM lives after it."""
        self._suspects.survived(version)

    @property
    def under_way(self) -> bool:
        """Whether vLLM was asked for versions that it was not seen to live after."""
        return self._suspects.under_way

    def all_survived(self) -> None:
        """vLLM lives at the end of the boot."""
        self._suspects.all_survived()

    def loaded(self, version: Digest) -> None:
        self._unloaded.over(version)

    def fetched(self, version: Digest) -> None:
        self._refetching.fetched(version)

    def recognised(self, version: Digest) -> None:
        self._unusable.over(version)
        self._chances.recognised(version)

    def not_fetched(self, version: Digest, error: TenonError) -> None:
        self._hold(version, self._refetching.failed(version, error, _now()))

    def not_loaded(self, version: Digest, error: EngineLoadFailed) -> None:
        if error.passing:
            self._hold(version, self._unloaded.failed(version, error.message, _now()))
        else:
            self._unloaded.over(version)
            self.refuse(version, error.message)

    def not_shown(self, version: Digest, reason: str) -> None:
        """vLLM failed to answer for it."""
        self._hold(version, self._unusable.failed(version, reason, _now()))

    def refuse(self, version: Digest, reason: str) -> None:
        self._refused[version] = reason
        self._report(Event("refused", f"{version.short}: {reason}", version))

    def fail(self, version: Digest, reason: str) -> None:
        self._failed[version] = reason
        self._report(Event("failed", f"{version.short}: {reason}", version))

    def _hold(self, version: Digest, pause: Pause) -> None:
        self._held[version] = pause
        self._report(Event("waiting", f"{version.short}: {pause.why}", version))


def _now() -> float:
    return asyncio.get_running_loop().time()
