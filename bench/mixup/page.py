"""docs/mixup.md: pure, so that a test holds it to what was measured."""

from collections.abc import Mapping
from typing import Any, Final

from server.mixup.controls import CONTROLS
from server.mixup.dangers import DANGERS

_SHOWN: Final = {
    "handled": "handled",
    "present": "**present**",
    "not_applicable": "not applicable",
    "not_tested": "not tested",
}
_NAMES: Final = {"ours": "Tenon", "bare": "bare vLLM"}

_TOP: Final = """# Mix-ups: does a server with many adapters answer with the wrong one?

Written by `make mixup`. `tenon mixup run` asks any OpenAI-compatible server that holds several LoRA
adapters until it answers one with another's weights, or does not. It trusts nothing that the server says
of itself: adapters are made to be told apart, each is recorded while nothing else is asked, and every
answer after that is compared, token by token, with what its own adapter and all others said. A suite that
never fails proves nothing, so servers that are broken on purpose belong to it: it has to notice
each.

A vLLM release counts as certified on a device (`CERTIFIED` in `server/engines/versions.py`) only because of
this page: no answer of Tenon's came from another adapter, and each control was caught. An agent refuses to
start any other release unless that is allowed (`tenon up --allow-uncertified`, `engine.allowUncertified` in
the chart, `TENON_ALLOW_UNCERTIFIED_ENGINE=true`). *Present* counts failed requests, too: the column of
mix-ups says whether any answer was wrong.
"""

_JUDGED: Final = """*Judged* are the requests whose answer's content decided. The others are about a status
(what has to be refused: all of Tenon's D1 and D6 among them) or a time (S1, most of D13). What was run before
these were counted shows none.
"""

_OURS: Final = """## What Tenon goes through

Two engines behind one router, with half as many slots each as bare vLLM has. Versions are promoted as
canaries and in full, rolled back, pushed and revoked while all tenants are answered, and one vLLM is killed
(`kill -9`) in the middle of it; later the cache of one node is swapped file by file, and the cache of the
other is deleted. With a single engine the same makes Tenon refuse to answer until it is back.

The rules are stricter than for others. *Handled* means:

* **Q1, D5, D7**: no answer is another's, and no request failed or was refused.
* **D2**: no answer is another's, and no request failed that the other engine could have answered. What is
  left are streams that had brought their first words when their engine was killed: what another engine says
  would be the rest of another answer, so they end with an error. They are counted and shown below, and there
  may be no more of them than were open. The killed engine is back, attested, without a human.
* **D3, D4**: no request failed while a node's cache was damaged, nor afterwards; the agent noticed by itself,
  and the engine is back without a human.
* **D1, D6, D8, D9, D10, D14**: what leads past an adapter's name is closed, with a tenant's key or without.
* **D12, D16**: the registry refuses the adapter, so no engine ever sees it.
* **D11, D13, D15, S1**: as for every server; D15 needs a call that came through.
"""

_BARE: Final = """## What bare vLLM does

vLLM as its documentation shows it for many adapters (`--max-loras 4 --max-cpu-loras 6`, loading at run time,
the filesystem resolver), started again after everything that can end it. On a CPU its processes are forked
from one that has imported vLLM, which starts it in half the time and changes nothing that it does. *Handled*
there says that it was looked for and did not happen: Q1, because nothing but the right adapters is in a batch
of adapters, and D2, because 0.32 has the fix of #47724 (without it: the first control).
"""

_YOURS: Final = """## Your own server

```sh
tenon mixup run --url http://127.0.0.1:8000 --base path/to/the/base --key-file key  # vLLM
tenon mixup run --url http://127.0.0.1:30000 --base path/to/the/base --loading sglang
tenon mixup run --url https://gateway.example --adapters one,two,three --loading none  # only what is there
tenon mixup run --url https://tenon.example --tenant acme=acme.key --tenant globex=globex.key  # a Tenon
tenon mixup run --start bare          # stock vLLM, started here
tenon mixup run --start ours          # Tenon's whole stack, started here
tenon mixup run --start ours --device cuda # on a GPU: docs/guides/kubernetes.md says what comes of it
tenon mixup control fix-47724-removed # has to be caught
```

SGLang is asked for `BASE:ADAPTER`: whatever is not called so is answered by the base there. The server must
be able to read what is written to `--shared-folder` (default: the temporary folder). What can end a server
(D4, D5, D11, D12) is asked only with `--destructive`, or of servers that were started here. `--salts` and
`--update` say what stands before your engines: whether a gateway sets `cache_salt` for each tenant, and
whether new weights get new names. `--only D2,D7` looks for some, `--report FILE` writes the report,
`--expect FILE` compares with one of before. The exit status is 0 only without any
mix-up, with nothing present and nothing asked in vain: of a danger that counts as *not tested* no answer
failed or was unclear.

A Tenon that is up is asked with the keys of two or more of its tenants, over its public API and nothing else:
every model that they list (`--adapters` for some), each as its policy allows: completions where that
can be, chats where a policy has a system prompt, whole answers where it asks for JSON. It is told apart what
they have now, so they should be adapters that differ. The requests are theirs: they count towards their
quotas, their usage and the audit trail. What a tenant cannot do is *not tested*, and says why:

```sh
tenon mixup run --url https://tenon.example --tenant acme=acme.key --tenant globex=globex.key \\
  --control https://control.example --admin-key-file admin.key --base path/to/the/base
```

With `--control` (a workspace folder, or a control plane: the key is that of `tenon login` unless there is
`--admin-key-file`) D2, D5 and D7 move the live aliases of these tenants under load, between what answers now
and the last version that was live before, and back at the end. An alias that needs approval stays where it
is, and so do those with a canary. With `--base`, D12 and D16 bring adapters to the registry that it must
refuse. `--twins acme,globex` names two tenants with the same weights, for S1. D3 and D4 need the disk below
an engine: `--start ours` does that.

**handled**: looked for, and not so. **present**: it happened. **not applicable**: the server has no such
way in. **not tested**: says why, and counts for nothing. An answer that cannot be told from another
adapter's is *unclear*, and is never counted as right, nor is one without a `finish_reason`. Only a 4xx is a
refusal: what ends in a 5xx or in no answer refused nothing. Where answers decide, 95 of 100 have to be the
adapter's own, or it is *not tested*.

S1 is judged by the clock: what a server says of its cache can only speak against it. One tenant asks what
nobody has asked, another asks the same and something new, in turns; the fastest answers of both kinds and the
middle of all pairs are compared. Below half of a new prompt's time it is *present*, from three quarters on
*handled*. Doubts are measured again, up to five times, so that load is not taken for a cache; what is still
in between then is *unclear*. Where a cache saves no time that can be measured (a small base on a GPU), only
what the server says can tell.

The distance of two answers is the mean difference, in nats, of the log-probabilities of the five most
likely tokens of each. An answer within a third of the way to the nearest other adapter is its own; one
that is three times nearer to another is that other's; one whose first tokens are its own and a later one
is not was switched; one that is nobody's was altered.
"""


def render(result: Mapping[str, Any]) -> str:
    reports: Mapping[str, Any] = result["reports"]
    parts = [
        _TOP,
        _summary(reports),
        _table(result, reports),
        _controls(reports),
        _figures(reports),
        _meanings(),
        _YOURS,
    ]
    return "\n".join(part for part in parts if part)


def _summary(reports: Mapping[str, Any]) -> str:
    told = any("judged" in each for each in reports.values())
    lines = [
        f"| target | vLLM | commit | requests |{' judged |' if told else ''} mix-ups | unclear | took |",
        "|---|---|---|---|---|---|---|" + ("---|" if told else ""),
    ]
    lines += [
        f"| {_NAMES.get(name, name)} | {each['server'].get('version', '')} "
        f"| {each.get('commit', '')} | {each['requests']:,} |{_judged(each) if told else ''}"
        f" {each['mixups']:,} | {each['unclear']:,} | {each['seconds']:.0f} s |"
        for name, each in reports.items()
    ]
    return "\n".join(lines) + "\n" + ("\n" + _JUDGED if told else "")


def _judged(report: Mapping[str, Any]) -> str:
    return f" {report['judged']:,} |" if "judged" in report else "  |"


def _table(result: Mapping[str, Any], reports: Mapping[str, Any]) -> str:
    shown = list(reports)
    lines = [
        "## Verdicts\n",
        "| | danger | " + " | ".join(_NAMES.get(name, name) for name in shown) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    lines += [
        f"| {danger.id} | {danger.title} | "
        + " | ".join(_SHOWN[result[name].get(danger.id, "not_tested")] for name in shown)
        + " |"
        for danger in DANGERS.values()
    ]
    return "\n".join(lines) + "\n"


def _controls(reports: Mapping[str, Any]) -> str:
    lines = [
        "## Negative controls\n",
        "| control | what is broken | caught by | found |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {control.meaning} | {control.caught_by} | {_why(reports[name], control.caught_by)} |"
        for name, control in CONTROLS.items()
        if name in reports
    ]
    return "\n".join(lines) + "\n" if len(lines) > 3 else ""


def _figures(reports: Mapping[str, Any]) -> str:
    """What was seen of Tenon where more than a verdict is to be said."""
    if "ours" not in reports:
        return ""
    shown = [f"* {danger}: {_why(reports['ours'], danger)}." for danger in ("D2", "D3", "D4", "D13")]
    calls = next(found for found in reports["ours"]["findings"] if found["danger"] == "D15")
    if calls["outcome"] == "handled" and not calls["figures"].get("valid"):
        # Measured when that was enough.
        shown.append(f"* D15: all {calls['refused']} calls were refused; today that counts as not tested.")
    told = _OURS + "\nIn this run:\n\n" + "\n".join(shown) + "\n"
    if "bare" not in reports:
        return told
    seen = [f"* {danger}: {_why(reports['bare'], danger)}." for danger in DANGERS]
    return told + "\n" + _BARE + "\n" + "\n".join(seen) + "\n"


def _meanings() -> str:
    lines = ["## What each means, and what helps\n"]
    lines += [
        f"* **{danger.id}, {danger.title}.** {danger.meaning} {danger.advice}" for danger in DANGERS.values()
    ]
    return "\n".join(lines) + "\n"


def _why(report: Mapping[str, Any], danger: str) -> str:
    return next(str(found["why"]) for found in report["findings"] if found["danger"] == danger)
