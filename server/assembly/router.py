"""The data plane process."""

from registry.clock import SystemClock
from registry.signing.keys import Signer
from router.app import create_app
from router.limits import Freshness, Timeouts
from server.api.client import ControlClient
from server.assembly import listen
from server.assembly.secrets import read_secret
from server.settings import RouterSettings


def serve(settings: RouterSettings) -> None:
    control = ControlClient(settings.control_url, read_secret(settings.service_token_file))
    app = create_app(
        feed=control,
        heads=control,
        signer=Signer.load(settings.router_key_file),
        records_dir=settings.records_dir,
        writer=settings.writer,
        salt_secret=read_secret(settings.salt_file).encode(),
        clock=SystemClock(),
        freshness=Freshness.within(settings.max_staleness),
        timeouts=Timeouts(
            connect=settings.connect_timeout,
            first_byte=settings.first_byte_timeout,
            between_chunks=settings.idle_timeout,
        ),
    )
    listen.serve(
        app,
        host=settings.host,
        port=settings.router_port,
        log_level=settings.log_level,
        drain=settings.drain,
    )
