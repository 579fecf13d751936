"""Old records off a router's disk: with a control plane and the router's own key, or in a workspace."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from registry.clock import SystemClock
from registry.errors import InvalidInput
from registry.signing.keys import Signer
from server.assembly.catalog import open_catalog, signer
from server.assembly.secrets import read_secret
from server.assembly.shipping import opened, record_folders
from server.settings import ShipSettings
from server.shipping.prune import Catalog, Pruned, prune
from server.shipping.registry import OverHttp
from server.workspace import Workspace


def prune_all(
    records: Path, targets: Sequence[str], settings: ShipSettings, workspace: Workspace | None, *, days: float
) -> dict[str, Pruned]:
    """Writer -> what was removed of it."""
    clock = SystemClock()
    before = clock.now() - timedelta(days=days)
    with ExitStack() as stack:
        places = [stack.enter_context(opened(to, settings, workspace)) for to in targets]
        catalog = stack.enter_context(_catalog(settings, workspace))
        key = _key(settings, workspace)
        return {
            folder.name: prune(folder, catalog, places, before=before, signer=key, clock=clock)
            for folder in record_folders(records)
        }


@contextmanager
def _catalog(settings: ShipSettings, workspace: Workspace | None) -> Iterator[Catalog]:
    if settings.control_url is not None and settings.service_token_file is not None:
        with OverHttp(settings.control_url, read_secret(settings.service_token_file)) as catalog:
            yield catalog
    elif workspace is not None:
        yield open_catalog(workspace)
    else:
        raise InvalidInput("which registry?", hint="give --workspace, or set TENON_CONTROL_URL")


def _key(settings: ShipSettings, workspace: Workspace | None) -> Signer:
    if settings.router_key_file is not None:
        return Signer.load(settings.router_key_file)
    if workspace is not None:
        return signer(workspace, "router")
    raise InvalidInput("which key is the router's?", hint="set TENON_ROUTER_KEY_FILE")
