"""``python -m tests.fuzz TARGET [SECONDS]``: one parser under atheris, guided by coverage.

atheris is not among the requirements: it has wheels for few Pythons and platforms. What was run with it:
docs/concepts/hostile-input.md
"""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    atheris: Any = importlib.import_module("atheris")
    name, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "60"
    with atheris.instrument_imports(include=["registry", "json"]):
        hostile = importlib.import_module("tests.support.hostile")
    seeds = importlib.import_module("tests.support.seeds")
    with tempfile.TemporaryDirectory(prefix="tenon-fuzz-") as made:
        folder = Path(made)
        (folder / "corpus").mkdir()
        for number, seed in enumerate(seeds.of(name)):
            (folder / "corpus" / str(number)).write_bytes(seed)

        def one(data: bytes) -> None:
            hostile.throw(name, data, folder)

        limits = [f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=2048", "-max_len=20000"]
        atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(folder / "corpus")], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
