"""Several answers to every question from an endpoint, each kept as it arrives."""

from collections.abc import Callable, Sequence
from contextlib import closing

from registry.digests import Digest
from trainer.answers_file import AnswersFile, key_of
from trainer.datasets import Case
from trainer.endpoint import Ask, EndpointClient, Reply
from trainer.recipes.sources import Endpoint
from trainer.recipes.training import Sampling

Advanced = Callable[[int, int], None]
"""(answers so far, answers wanted)."""


def ask_all(
    endpoint: Endpoint,
    key: str | None,
    cases: Sequence[Case],
    *,
    sampling: Sampling | None,
    samples: int,
    seed: int,
    longest: int,
    kept: AnswersFile,
    advanced: Advanced = lambda done, total: None,
    client: EndpointClient | None = None,
) -> list[list[Reply]]:
    """``samples`` answers a case, in the order of the cases; without ``sampling`` the likeliest one, of
    ``longest`` tokens at most. What ``kept`` holds is not asked again.

    Raises EndpointUnreachable and EndpointRefused; whatever arrived before is in ``kept``.
    """
    who = f"{endpoint.url} {endpoint.model}"
    keys = [
        [key_of(case, sampling, who=who, seed=seed, number=number) for number in range(samples)]
        for case in cases
    ]
    missing: dict[Digest, Ask] = {
        name: _ask(case, sampling, longest=longest, seed=seed * 1_000_003 + number)
        for case, several in zip(cases, keys, strict=True)
        for number, name in enumerate(several)
        if name not in kept
    }
    names = list(missing)
    total = samples * len(cases)
    done = total - len(missing)
    advanced(done, total)
    with closing(client or EndpointClient(endpoint, key)) as asking:
        for place, reply in asking.chat_many(list(missing.values())):
            kept.add(names[place], reply)
            done += 1
            advanced(done, total)
    return [[kept[name] for name in several] for several in keys]


def _ask(case: Case, sampling: Sampling | None, *, longest: int, seed: int) -> Ask:
    drawn = (
        {"temperature": 0.0, "max_tokens": longest}
        if sampling is None
        else {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed,
        }
    )
    tools = {"tools": list(case.tools)} if case.tools else {}
    return Ask([message.as_dict() for message in case.prompt], {**drawn, **tools})
