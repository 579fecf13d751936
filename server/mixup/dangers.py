"""What can go wrong, by number. The numbers are stable: reports of different years are compared by them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Outcome: TypeAlias = Literal["handled", "present", "not_applicable", "not_tested"]


@dataclass(frozen=True, slots=True)
class Danger:
    id: str
    title: str
    meaning: str
    advice: str
    destructive: bool = False
    """Looking for it can end the server."""


_ALL: Final = (
    Danger(
        "Q1",
        "adapters are not told apart",
        "An adapter answers as another one or as the base, alone or in a batch of others, while nothing is "
        "loaded or unloaded.",
        "Attest each adapter by its behaviour after it was loaded.",
    ),
    Danger(
        "D1",
        "the base in a batch of adapters",
        "A request for the bare base that shares a batch with an adapter's is answered by that adapter "
        "(vLLM's CPU backend).",
        "Serve the base through an adapter without effect.",
    ),
    Danger(
        "D2",
        "an answer in flight changes weights",
        "While an answer is decoded another adapter is loaded into its slot, and the rest of it comes "
        "from there (vLLM #47724).",
        "Run a version with the fix, and check it under churn.",
    ),
    Danger(
        "D3",
        "evicted adapters are read again from disk",
        "An adapter that fell out of the engine's memory is silently read again from its folder, whatever "
        "lies there by then.",
        "Keep folders read-only and content-addressed, and memory for all names.",
    ),
    Danger(
        "D4",
        "a deleted folder ends the engine",
        "The folder of an evicted adapter is gone: the next request for it ends the engine for all.",
        "Never delete a folder whose name an engine knows.",
        destructive=True,
    ),
    Danger(
        "D5",
        "a name is taken again under load",
        "Unload and load of one name with another folder, with its requests in flight, ends the engine or "
        "answers with the wrong weights.",
        "Never use a name twice.",
        destructive=True,
    ),
    Danger(
        "D6",
        "replacement in place",
        "`load_inplace` changes the weights of answers that are being decoded.",
        "Never use it; keep the endpoint out of reach.",
    ),
    Danger(
        "D7",
        "prefix cache by name",
        "New weights under an old name and path are mixed with what the old ones left in the prefix cache: "
        "the answer is neither's.",
        "Put the digest of the weights into name and path.",
    ),
    Danger(
        "D8",
        "endpoints without a key",
        "The API key guards some paths only: adapters can be loaded, listed or used without it.",
        "Keep the engine on loopback or a private network.",
    ),
    Danger(
        "D9",
        "the SageMaker path",
        "At /invocations a header names the adapter and the model in the body is ignored; without the header "
        "the base answers.",
        "Do not route it; strip X-Amzn-* headers.",
    ),
    Danger(
        "D10",
        "no model named",
        "A request without a model, or with an empty one, is answered by the base with 200.",
        "Refuse it before the engine.",
    ),
    Danger(
        "D11",
        "log-probabilities of prompts",
        "One request with prompt_logprobs beside a decoding one ends the engine.",
        "Refuse the field before the engine.",
        destructive=True,
    ),
    Danger(
        "D12",
        "weights that are not finite, or huge",
        "NaN or enormous weights are loaded with 200, and leave other answers broken through shared memory.",
        "Check values before an adapter comes near an engine.",
        destructive=True,
    ),
    Danger(
        "D13",
        "starvation",
        "With all slots busy, a request for another adapter waits as long as the busy ones go on.",
        "Fair turns in front of the engine.",
    ),
    Danger(
        "D14",
        "paths as names",
        "A model name with ../ or an absolute path is opened as a folder.",
        "A strict grammar of names; no resolver that joins paths.",
    ),
    Danger(
        "D15",
        "arguments of tools",
        "Arguments of a called tool do not fit the tool's schema, with 200.",
        "Force strict calls, and validate them again.",
    ),
    Danger(
        "D16",
        "adapters of another structure",
        "An adapter for other layers or another base is loaded with 200 and answers, partly or not at all.",
        "Check names, shapes, rank and base before loading.",
    ),
    Danger(
        "S1",
        "what others asked shows in time",
        "Two tenants share prefixes in the cache: a faster answer (or `cached_tokens`) tells one what the "
        "other has sent (CVE-2025-46570).",
        "A salt of the cache for each tenant, set by the server and not by the client.",
    ),
)
DANGERS: Final[Mapping[str, Danger]] = {danger.id: danger for danger in _ALL}
