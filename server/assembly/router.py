"""The data plane process."""

from registry.clock import SystemClock
from registry.signing.keys import Signer
from router.admission import Patience
from router.app import create_app
from router.limits import Freshness, Limits, Timeouts
from router.logs import AccessLog
from router.ports import Spans
from server.api.client import ControlClient
from server.api.peers import RouterPeers
from server.assembly import listen, logs
from server.assembly.identity import open_tokens
from server.assembly.secrets import read_secret
from server.settings import RouterSettings


def serve(settings: RouterSettings) -> None:
    control = ControlClient(settings.control_url, read_secret(settings.service_token_file))
    clock = SystemClock()
    app = create_app(
        feed=control,
        heads=control,
        counters=control,
        usage=control,
        patience=Patience(
            running=settings.engine_requests,
            waiting=settings.queue_length,
            aging=min(settings.queue_aging, settings.queue_seconds),
            longest=settings.queue_seconds,
        ),
        token_bytes=settings.prompt_token_bytes,
        limits=Limits(choices=settings.choices),
        signer=Signer.load(settings.router_key_file),
        records_dir=settings.records_dir,
        writer=settings.writer,
        salt_secret=read_secret(settings.salt_file).encode(),
        retention_key=read_secret(settings.retention_key_file).encode()
        if settings.retention_key_file
        else None,
        clock=clock,
        freshness=Freshness.within(settings.max_staleness),
        timeouts=Timeouts(
            connect=settings.connect_timeout,
            first_byte=settings.first_byte_timeout,
            between_chunks=settings.idle_timeout,
        ),
        metrics_token=read_secret(settings.metrics_token_file) if settings.metrics_token_file else None,
        access=AccessLog(logs.write_access, clock) if settings.access_log else None,
        spans=_spans(settings),
        peers=RouterPeers(settings.peers.split(",")) if settings.peers else None,
        tokens=open_tokens(settings),
    )
    listen.serve(
        app,
        host=settings.host,
        port=settings.router_port,
        log_level=settings.log_level,
        log_format=settings.log_format,
        drain=settings.drain,
        keep_alive=settings.keep_alive,
    )


def _spans(settings: RouterSettings) -> Spans | None:
    if settings.traces_url is None:
        return None
    from server.assembly.tracing import otlp  # 0.2 s of imports that only traces need

    return otlp(settings.traces_url, ratio=settings.traces_ratio, writer=settings.writer)
