"""``python -m server.engines.merging BASE ADAPTER OUT``: run by the agent, so that torch ends with it."""

import sys
from pathlib import Path

from registry.errors import TenonError
from trainer.learning.merge import merge


def main(arguments: list[str]) -> int:
    """The exit status; why it is not 0 is on standard error."""
    base, adapter, out = (Path(argument) for argument in arguments)
    try:
        merge(base, adapter, out, precision="float32")
    except TenonError as error:
        print(error.message, file=sys.stderr)  # noqa: T201 (the agent's log)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
