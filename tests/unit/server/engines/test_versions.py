import pytest

from server.engines.errors import EngineUnsafeVersion
from server.engines.versions import refuse_unsafe


@pytest.mark.parametrize("version", ["0.32.0", "0.32", "0.32.1", "0.33.0rc1", "0.32.0+cpu", "1.0.0"])
def test_releases_with_the_fix_are_trusted(version: str) -> None:
    refuse_unsafe(version)


@pytest.mark.parametrize(
    "version", ["0.31.9", "0.3.20", "0.32.0rc1", "0.32.0.dev12+g123", "dev", "", "v0.32.0", "0.32.0a1"]
)
def test_older_early_and_unreadable_versions_are_not(version: str) -> None:
    with pytest.raises(EngineUnsafeVersion):
        refuse_unsafe(version)
