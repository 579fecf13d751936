"""``tenon policy``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place

Tenant = Annotated[str, typer.Argument(help="Whose policy")]


def install(app: typer.Typer) -> None:
    from server.cli import policy_check

    group = typer.Typer(help="What every answer on a route must satisfy.", no_args_is_help=True)
    group.command("publish")(publish)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("check")(policy_check.check)
    app.add_typer(group, name="policy")


def publish(
    tenant: Tenant,
    name: Annotated[str, typer.Argument(help="Name for people, such as v1")],
    schema: Annotated[Path | None, typer.Option("--schema", help="JSON schema of every answer")] = None,
    system_prompt: Annotated[str | None, typer.Option("--system-prompt", help="Put before messages")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Most tokens of an answer [default: 256]")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="All that the policy says, in YAML")
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Publish a policy; prints its digest, which routes name."""
    from registry.models import Policy
    from server.assembly.policy_file import read_policy

    said = {
        "json_schema": schema.read_text() if schema else None,
        "system_prompt": system_prompt,
        "sampling": {} if max_tokens is None else {"max_tokens": max_tokens},
    }
    if file is None:
        policy = Policy.build({"tenant": tenant, "name": name} | said)
    elif any(said.values()):
        raise typer.BadParameter("--file says all of the policy, so no other option can")
    else:
        policy = read_policy(file, tenant=tenant, name=name)
    digest = place(workspace).catalog.publish_policy(policy, actor="cli")
    if json:
        render.data({"digest": digest} | policy.model_dump(mode="json"))
    else:
        render.text(digest)


def list_(tenant: Tenant, json: Json = False, workspace: At = None) -> None:
    """List a tenant's policies."""
    policies = place(workspace).catalog.policies(tenant)
    if json:
        render.data([{"digest": one.identity()} | one.model_dump(mode="json") for one in policies])
        return
    rows = [
        [one.name, one.identity(), "JSON" if one.json_schema else "text", str(one.sampling.max_tokens)]
        for one in policies
    ]
    render.table("", ["name", "policy", "answers", "most tokens"], rows)


def show(
    tenant: Tenant,
    policy: Annotated[str, typer.Argument(help="sha256:…, or the name: the newest of that name")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show a policy, its schema as its author wrote it."""
    from registry.errors import PolicyNotFound

    found = [one for one in place(workspace).catalog.policies(tenant) if policy in (one.name, one.identity())]
    if not found:
        raise PolicyNotFound(f"{tenant} has no policy {policy[:80]!r}")
    shown = found[-1]
    if json:
        render.data({"digest": shown.identity()} | shown.model_dump(mode="json"))
        return
    bounds = shown.sampling
    used = "the engine's" if bounds.top_p is None else f"{bounds.top_p:g}"
    rows = [
        ["policy", shown.identity()],
        ["most tokens", str(bounds.max_tokens)],
        [
            "temperature",
            f"{bounds.temperature:g}, from {bounds.min_temperature:g} to {bounds.max_temperature:g}",
        ],
        ["top_p", f"{used}, from {bounds.min_top_p:g} to {bounds.max_top_p:g}"],
        ["penalties", f"at most {bounds.max_penalty:g}"],
        ["most answers (n)", str(bounds.max_choices)],
        ["logprobs", f"at most {bounds.max_top_logprobs}" if bounds.logprobs else "no"],
        ["tools", ", ".join(shown.tools) or "none"],
        ["invalid answers", shown.on_invalid],
        ["clients' schemas", shown.client_schema],
        ["kept", shown.retention + (", intents too" if shown.intent_durable else "")],
        ["system prompt", shown.system_prompt or "none"],
        ["examples", "\n".join(f"{turn.role}: {turn.content}" for turn in shown.prompt) or "none"],
        ["schema", shown.json_schema or "none"],
    ]
    render.table(shown.name, ["what", "value"], rows)
