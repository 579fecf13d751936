"""An identity provider on loopback: real keys, a real JWKS endpoint, tokens as it or a forger makes them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from registry.clock import Clock

ISSUER = "https://login.example.com/realms/tenon"
AUDIENCE = "tenon"


@cache
def private_key(kid: str) -> Any:
    """One key for a name, whatever the test: RSA keys take a tenth of a second to make."""
    if kid.startswith("rsa"):
        return rsa.generate_private_key(65537, 1024 if kid == "rsa-short" else 2048)
    if kid.startswith("ec"):
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def algorithm(kid: str) -> str:
    return {"rsa": "RS256", "ec-": "ES256"}.get(kid[:3], "EdDSA")


def jwk(kid: str) -> dict[str, Any]:
    made = jwt.get_algorithm_by_name(algorithm(kid)).to_jwk(private_key(kid).public_key(), as_dict=True)
    return {key: value for key, value in made.items() if key != "key_ops"} | {"kid": kid, "use": "sig"}


@dataclass
class Provider:
    clock: Clock
    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=lambda: [jwk("ed-1")])
    status: int = 200
    body: bytes | None = None
    """Instead of the keys."""
    asked: int = 0
    dripping: bool = False
    """One byte of every answer, then another one, and never all of them."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Of a good token; None takes a claim away."""
        now = int(self.clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": now,
            "exp": now + 600,
            "tenon_role": "tenant_admin",
            "tenon_tenant": "bank_a",
        }
        return {key: value for key, value in (claims | changed).items() if value is not None}

    def token(self, kid: str = "ed-1", *, named: str | None = None, **changed: Any) -> str:
        """``named``: the key id that the header claims."""
        return jwt.encode(
            self.claims(**changed),
            private_key(kid),
            algorithm=algorithm(kid),
            headers={"kid": kid if named is None else named},
        )


@contextmanager
def provider(clock: Clock) -> Iterator[Provider]:
    made = Provider(clock)

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += 1
            while made.dripping and not made.stopped.wait(0.01):  # faster than any timeout of a single read
                try:
                    self.wfile.write(b"H")
                except OSError:
                    return
            body = json.dumps({"keys": made.keys}).encode() if made.body is None else made.body
            self.send_response(made.status)
            if made.status == 302:
                self.send_header("Location", made.url + "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        made.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()
