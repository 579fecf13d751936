"""Tenants that ask all the time, while something is done to what answers them."""

import threading
import time
from collections.abc import Callable

import openai

from server.testing.fake_model import signature, signed_by
from tests.journeys.conftest import TENANTS, Served


class Load:
    """Every tenant asks, again and again, on a thread of its own."""

    def __init__(self, served: Served, **signed: str) -> None:
        """``signed``: tenant -> how what answers it by now signs."""
        self._served = served
        self._stop = threading.Event()
        self.right = dict.fromkeys(TENANTS, 0)
        self.expected = {
            tenant: {signed.get(tenant) or signature(served.weights[tenant])} for tenant in TENANTS
        }
        """Whose answers are right."""
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(tenant,)) for tenant in TENANTS]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        self.until(lambda: all(self.right.values()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, tenant: str) -> None:
        with openai.OpenAI(
            base_url=f"{self._served.url}/v1", api_key=self._served.keys[tenant], max_retries=0, timeout=30
        ) as client:
            while not self._stop.is_set():
                before = self.expected[tenant]
                try:
                    answer = client.chat.completions.create(
                        model="assistant", messages=[{"role": "user", "content": "pay"}], max_tokens=64
                    )
                except openai.OpenAIError as error:
                    self.wrong.append(f"{tenant}: {error}")
                    continue
                (signed,) = signed_by(answer.choices[0].message.content or "") or {""}
                if signed in before | self.expected[tenant]:
                    self.right[tenant] += 1
                else:
                    self.wrong.append(f"{tenant}: somebody else answered")

    def go_on(self) -> None:
        """Until everybody was answered some more times."""
        before = dict(self.right)
        self.until(lambda: all(self.right[tenant] > before[tenant] + 3 for tenant in TENANTS))

    def until(self, holds: Callable[[], bool]) -> None:
        until(holds, self.wrong)


def until(holds: Callable[[], bool], wrong: list[str]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert not wrong, wrong[:3]
        assert time.monotonic() < deadline
        time.sleep(0.05)
