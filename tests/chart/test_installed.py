"""What `helm test` runs in the cluster, run here against servers on loopback; and that the pod runs it."""

import ast
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.chart.charts import CHART, Release

SCRIPT = CHART / "files" / "installed.py"
GOOD = {"/readyz": 200, "/v1/models": 401}


@contextmanager
def router(answers: Mapping[str, int]) -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers[self.path])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def listener(*, accepts: bool) -> Iterator[str]:
    """An address that takes connections, or one that is sure to refuse them (bound, so nobody can listen)."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if accepts:
            bound.listen()
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.read_text(), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_good_release_passes() -> None:
    with router(GOOD) as url, listener(accepts=False) as closed:
        done = run(url, closed)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({"/readyz": 503}, "the router is not ready: /readyz answered 503 instead of 200"),
        (
            {"/v1/models": 200},
            "a request without a key was not refused: /v1/models answered 200 instead of 401",
        ),
    ],
)
def test_a_router_that_answers_wrongly_fails(answers: dict[str, int], sentence: str) -> None:
    with router({**GOOD, **answers}) as url:
        done = run(url)
    assert done.returncode == 1
    assert sentence in done.stderr


def test_a_router_that_is_not_there_fails() -> None:
    with listener(accepts=False) as nobody:
        done = run(f"http://{nobody}")
    assert done.returncode == 1
    assert "/readyz cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_lets_us_in_fails() -> None:
    with router(GOOD) as url, listener(accepts=False) as closed, listener(accepts=True) as opened:
        done = run(url, closed, opened)
    assert done.returncode == 1
    assert f"{opened} let in a pod that is no router" in done.stderr
    assert closed not in done.stderr


def test_an_address_that_does_not_exist_proves_nothing() -> None:
    with router(GOOD) as url:
        done = run(url, "engine.invalid:8411")
    assert done.returncode == 1
    assert "engine.invalid has no address" in done.stderr


def test_the_pod_runs_the_script_on_this_release(gpu: Release) -> None:
    (pod,) = gpu.of("Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    container = gpu.container("test")
    script, url, *closed = container["args"]
    assert container["command"] == ["python", "-c"]
    assert ast.dump(ast.parse(script)) == ast.dump(ast.parse(SCRIPT.read_text()))
    assert "$(" not in script  # the kubelet would expand it
    assert url == "http://adapters-router.prod.svc:80"
    services = {service["metadata"]["name"]: service["spec"] for service in gpu.of("Service")}
    assert services["adapters-router"]["ports"][0]["port"] == 80
    assert closed == [
        "adapters-engine.prod.svc:8410",
        "adapters-engine.prod.svc:8411",
        "adapters-control.prod.svc:8401",
    ]
    # an engine that is still loading must have an address too, or the check says nothing about it
    assert services["adapters-engine"]["publishNotReadyAddresses"] is True
