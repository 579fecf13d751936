"""Where a control plane hears of the engines that there should be."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import aiohttp

from registry.catalog.fleet import Fleet
from registry.catalog.local.catalog import LocalCatalog
from registry.errors import InvalidDocument
from server.api.expected import Discovery, Expected
from server.engines.discovery.kubernetes import ApiServer, Kubernetes
from server.engines.discovery.static import StaticList
from server.errors import SettingsInvalid
from server.settings import DiscoverySettings

_AGAIN = 5.0
"""Seconds until a watch that failed in a way nobody thought of is begun anew."""
_log = logging.getLogger(__name__)


def discoveries(settings: DiscoverySettings) -> tuple[Discovery, ...]:
    """Nothing is asked of a network yet. Raises SettingsInvalid."""
    found: list[Discovery] = []
    if settings.engines_file is not None:
        try:
            found.append(StaticList(settings.engines_file))
        except InvalidDocument as error:
            raise SettingsInvalid(f"TENON_ENGINES_FILE: {error.message}") from None
        except OSError as error:
            raise SettingsInvalid(f"TENON_ENGINES_FILE cannot be read: {error.strerror}") from None
    if settings.kubernetes_services is not None:
        found.append(Kubernetes(_server(settings, settings.kubernetes_services)))
    return tuple(found)


def _server(settings: DiscoverySettings, services: str) -> ApiServer:
    account = settings.kubernetes_account
    try:
        namespace = (account / "namespace").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsInvalid("TENON_KUBERNETES_ACCOUNT: no service account is mounted there") from None
    return ApiServer(
        url=settings.kubernetes_url,
        namespace=namespace,
        services=tuple(services.split(",")),
        account=account,
    )


@contextmanager
def following(found: Sequence[Discovery]) -> Iterator[None]:
    """While it lasts, what has to be watched is watched, in one thread with a loop of its own."""
    watched = [each for each in found if isinstance(each, Kubernetes)]
    if not watched:
        yield
        return
    loop = asyncio.new_event_loop()
    task = loop.create_task(_all(watched))

    def run() -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="tenon-discovery", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


async def _all(watched: Sequence[Kubernetes]) -> None:
    async with asyncio.TaskGroup() as group:
        for each in watched:
            group.create_task(_for_ever(each))


async def _for_ever(each: Kubernetes) -> None:
    while True:
        try:
            await each.follow()
        except Exception:
            _log.exception("engines could not be discovered")
        await asyncio.sleep(_AGAIN)


def with_expected(fleet: Fleet, catalog: LocalCatalog, settings: DiscoverySettings) -> Fleet:
    """What a control plane with these settings would show after its first look: for a command beside it.

    Raises SettingsInvalid. An API server that does not answer is one that was not heard."""
    found = discoveries(settings)
    for each in found:
        if isinstance(each, Kubernetes):
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, InvalidDocument):
                asyncio.run(each.once())
    return Expected(catalog, found).shown(fleet)
