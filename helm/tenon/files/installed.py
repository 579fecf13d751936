"""Run by `helm test`: does the release answer, and is it closed where it must be?

Usage: installed.py ROUTER_URL CLOSED_HOST:PORT...
A closed address must resolve and then refuse us: if it answers, the cluster's network plugin ignores
NetworkPolicies.
"""

import socket
import sys
import urllib.error
import urllib.request


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (the chart wrote the URL)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def check_answers(router: str) -> list[str]:
    faults = []
    for path, expected, meaning in (
        ("/readyz", 200, "the router is not ready"),
        ("/v1/models", 401, "a request without a key was not refused"),
    ):
        try:
            got = status(router + path)
        except OSError as error:
            faults.append(f"{router}{path} cannot be reached: {error}")
            continue
        if got != expected:
            faults.append(f"{meaning}: {path} answered {got} instead of {expected}")
    return faults


def check_closed(address: str) -> list[str]:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        return [f"{host} has no address, so nothing is proven about it: {error}"]
    for family, kind, protocol, _, target in found:
        with socket.socket(family, kind, protocol) as connection:
            connection.settimeout(3)
            try:
                connection.connect(target)
            except OSError:
                continue
            return [
                f"{address} let in a pod that is no router: NetworkPolicies have no effect in this cluster"
            ]
    return []


def main(arguments: list[str]) -> int:
    router, *closed = arguments
    faults = check_answers(router)
    for address in closed:
        faults += check_closed(address)
    for fault in faults:
        sys.stderr.write(f"error: {fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
