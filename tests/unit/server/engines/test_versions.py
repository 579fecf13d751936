import pytest

from server.engines.errors import EngineUncertified, EngineUnsafeVersion
from server.engines.spec import Device
from server.engines.versions import certified, refuse_unsafe, refuse_untrusted

OLD = ["0.31.9", "0.3.20", "0.32.0rc1", "0.32.0.dev12+g123", "dev", "", "v0.32.0", "0.32.0a1"]


@pytest.mark.parametrize("version", ["0.32.0", "0.32", "0.32.1", "0.33.0rc1", "0.32.0+cpu", "1.0.0"])
def test_releases_with_the_fix_are_trusted(version: str) -> None:
    refuse_unsafe(version)


@pytest.mark.parametrize("version", OLD)
def test_older_early_and_unreadable_versions_are_not(version: str) -> None:
    with pytest.raises(EngineUnsafeVersion):
        refuse_unsafe(version)


@pytest.mark.parametrize("version", OLD)
def test_no_permission_makes_an_unsafe_version_safe(version: str) -> None:
    with pytest.raises(EngineUnsafeVersion):
        refuse_untrusted(version, "cpu", allow_uncertified=True)


def test_what_the_suite_has_seen_is_certified() -> None:
    assert certified("0.32.0", "cpu")
    refuse_untrusted("0.32.0+cpu", "cpu", allow_uncertified=False)


@pytest.mark.parametrize(
    ("version", "device"),
    [("0.32.0", "cuda"), ("0.32.1", "cpu"), ("0.33.0", "cpu"), ("1.0", "cuda"), ("0.32", "cpu")],
)
def test_everything_else_needs_a_person_who_answers_for_it(version: str, device: Device) -> None:
    with pytest.raises(EngineUncertified):
        refuse_untrusted(version, device, allow_uncertified=False)
    refuse_untrusted(version, device, allow_uncertified=True)
