"""A merge without a model, for the fake vLLM: the adapter's files among those of the base."""

import shutil
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    base, adapter, out = (Path(argument) for argument in arguments)
    out.mkdir()
    for source in (base, adapter):
        for path in source.iterdir():
            if path.is_file():
                shutil.copyfile(path, out / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
