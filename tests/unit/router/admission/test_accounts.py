"""An account beside other routers' counts."""

import pytest

from registry.counting import BEAT_SECONDS, Count
from registry.models import Quota
from router.admission.accounts import Account
from router.errors import RateLimited


def test_what_others_run_is_believed_for_a_beat_and_no_longer() -> None:
    account = Account("tenant/bank_a", Quota(concurrent_requests=2))
    account.hear([Count(subject="tenant/bank_a", kind="running", slot=0, value=2)], 1000.0)
    with pytest.raises(RateLimited):
        account.check(1, 1, 1000.0 + BEAT_SECONDS - 0.1)
    account.check(1, 1, 1000.0 + BEAT_SECONDS)  # its router may be gone, and what it ran with it
