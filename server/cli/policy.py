"""``tenon policy``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="What every answer on a route must satisfy.", no_args_is_help=True)
    group.command("publish")(publish)
    app.add_typer(group, name="policy")


def publish(
    tenant: Annotated[str, typer.Argument(help="Whose policy")],
    name: Annotated[str, typer.Argument(help="Name for people, such as v1")],
    schema: Annotated[Path | None, typer.Option("--schema", help="JSON schema of every answer")] = None,
    system_prompt: Annotated[str | None, typer.Option("--system-prompt", help="Put before messages")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Most tokens of an answer")] = 256,
    workspace: At = None,
) -> None:
    """Publish a policy; prints its digest, which routes name."""
    from registry.models import Policy, Sampling
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    policy = Policy.build(
        {
            "tenant": tenant,
            "name": name,
            "json_schema": schema.read_text() if schema else None,
            "system_prompt": system_prompt,
            "sampling": Sampling(max_tokens=max_tokens).model_dump(mode="json"),
        }
    )
    render.text(open_catalog(find(root(workspace))).publish_policy(policy, actor="cli"))
