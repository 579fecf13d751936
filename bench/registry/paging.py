"""Pages of lists, from the first to the last, and single things, over HTTP as a console asks for them."""

import time

import httpx

from bench.registry import population
from bench.registry.timing import Spread

_PAGE = 50
"""The default of the API."""


def pages(url: str, secret: str, path: str) -> dict[str, float]:
    """Milliseconds of the first, the middle and the last page, and of the slowest of all."""
    samples: list[float] = []
    cursor: str | None = None
    with httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {secret}"}) as client:
        client.get("/whoami").raise_for_status()
        while True:
            query = {"limit": str(_PAGE)} | ({"cursor": cursor} if cursor else {})
            began = time.perf_counter()
            answer = client.get(path, params=query)
            samples.append((time.perf_counter() - began) * 1e3)
            cursor = answer.raise_for_status().json()["next"]
            if cursor is None:
                break
    found = Spread.of(samples)
    return {
        "pages": float(len(samples)),
        "first": samples[0],
        "middle": samples[len(samples) // 2],
        "last": samples[-1],
        "p50": found.p50,
        "p99": found.p99,
        "most": found.most,
    }


def shown(url: str, secret: str, paths: list[str]) -> Spread:
    """Milliseconds of single things."""
    samples = []
    with httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {secret}"}) as client:
        client.get("/whoami").raise_for_status()
        for path in paths:
            began = time.perf_counter()
            client.get(path).raise_for_status()
            samples.append((time.perf_counter() - began) * 1e3)
    return Spread.of(samples)


def measure(url: str, secret: str, size: population.Size) -> dict[str, dict[str, float]]:
    deep = f"/tenants/{population.tenant_name(0)}"
    lists = {
        "tenants": "/tenants",
        "adapters of a tenant": f"{deep}/adapters",
        "versions of an adapter": f"{deep}/adapters/assistant/versions",
    }
    found = {name: pages(url, secret, path) for name, path in lists.items()}
    some = range(0, size.tenants, max(1, size.tenants // 100))
    single = {
        "one tenant": [f"/tenants/{population.tenant_name(number)}" for number in some],
        "one alias": [
            f"/tenants/{population.tenant_name(number)}/adapters/assistant/aliases/live" for number in some
        ],
        "one version": [
            f"/tenants/{population.tenant_name(number)}/adapters/assistant/versions/"
            f"{population.version_of(number, size.each - 1)}"
            for number in some
        ],
    }
    for name, paths in single.items():
        spread = shown(url, secret, paths)
        found[name] = {"p50": spread.p50, "p99": spread.p99, "most": spread.most}
    return found
