"""Run every benchmark, print a table each, write bench/results/*.json."""

import asyncio
import json
from pathlib import Path

from bench import router
from server.cli import render

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    result = asyncio.run(router.measure())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "router.json").write_text(json.dumps(result, indent=2) + "\n")
    rows = [[name, f"{value:,.2f}"] for name, value in result.items()]
    render.table("Router over the fake engine, all governance on", ["figure", "value"], rows)


if __name__ == "__main__":
    main()
