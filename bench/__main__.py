"""Every benchmark of ``make bench``: each prints its table and writes bench/results; then comes the page."""

import sys

from bench import performance
from bench.engines import __main__ as engines
from bench.router import __main__ as router


def main() -> None:
    sys.argv[1:] = ["--write", *sys.argv[1:]]
    router.main()
    engines.main(["--write"])
    performance.main()


if __name__ == "__main__":
    main()
