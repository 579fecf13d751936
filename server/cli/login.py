"""``tenon login`` and ``tenon logout``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import Json

Url = Annotated[str, typer.Argument(help="Control plane, such as https://tenon.example.com")]


def install(app: typer.Typer) -> None:
    app.command("login")(login)
    app.command("logout")(logout)


def login(
    url: Url,
    key_file: Annotated[Path | None, typer.Option("--key-file", help="Read the key from here")] = None,
    json: Json = False,
) -> None:
    """Keep a key for a control plane, once the control plane has accepted it."""
    from registry.catalog.remote.catalog import RemoteCatalog
    from server.assembly.logins import Login, Logins
    from server.assembly.place import normal, read_key, wire
    from server.settings import ClientSettings, config_folder, load

    address = normal(url)
    if address.startswith("http:") and not _stays_here(address):
        # Before the key is asked for and sent: who reads this can still end it.
        render.note("warning: this is not https: everyone on the way can read the key and what you push")
    # A key on the command line would stay in the shell's history and in the process list.
    key = read_key(key_file) if key_file else typer.prompt("Key", hide_input=True, err=True).strip()
    with RemoteCatalog(wire(address, key)) as catalog:
        me = catalog.whoami()
    path = Logins(config_folder(load(ClientSettings))).save(Login(url=address, key=key))
    if json:
        render.data({"url": address, "actor": me.actor, "tenant": me.tenant, "role": me.role})
        return
    whose = f"of {me.tenant}" if me.tenant else "of the platform"
    render.note(f"Logged in to {address} as {me.actor}, {me.role} {whose}; the key is in {path}")
    render.note(f"next: export TENON_WORKSPACE={address}, or give it with -w")


def logout(url: Url, json: Json = False) -> None:
    """Forget the key of a control plane. The key itself stays valid: tenon key revoke ends it."""
    from server.assembly.logins import Logins
    from server.assembly.place import normal
    from server.settings import ClientSettings, config_folder, load

    address = normal(url)
    there = Logins(config_folder(load(ClientSettings))).forget(address)
    if json:
        render.data({"url": address, "forgotten": there})
    else:
        render.note(f"Forgot the key of {address}" if there else f"There was no key of {address}")


def _stays_here(url: str) -> bool:
    import ipaddress

    import httpx

    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
