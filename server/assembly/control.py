"""The control plane process."""

from registry.clock import SystemClock
from server.api.app import create_app
from server.api.control import Control
from server.api.liveness import Watch
from server.assembly import listen
from server.assembly.blobs import open_storage
from server.assembly.catalog import open_catalog
from server.assembly.discovery import discoveries, following
from server.assembly.identity import open_oidc
from server.assembly.secrets import read_secret
from server.settings import ControlSettings
from server.workspace import find


def serve(settings: ControlSettings) -> None:
    workspace = find(settings.workspace)
    storage = open_storage(workspace, settings)
    found = discoveries(settings)
    control = Control(
        catalog=open_catalog(workspace, settings),
        blobs=storage.blobs,
        uploads=storage.uploads,
        service_token=read_secret(settings.service_token_file),
        oidc=open_oidc(settings, SystemClock()),
        silence=settings.engine_silence,
        discoveries=found,
        refuse_unlisted=settings.unlisted_engines == "refuse",
    )
    with following(found), Watch(control.liveness, control.expected):
        listen.serve(
            create_app(control),
            host=settings.host,
            port=settings.control_port,
            log_level=settings.log_level,
            log_format=settings.log_format,
        )
