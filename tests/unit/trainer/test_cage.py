"""What an answer's code tries against its cage, and what tests may still do with what it returns."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.datasets import Case, Message
from trainer.errors import RecipeInvalid, VerifierFailed
from trainer.recipes.sources import RewardSettings
from trainer.rewards import Answer, Resources, Score, build, score, unit_tests

ADD = "assert add(1, 2) == 3"
RIGHT = "\ndef add(a, b): return a + b\n"


def judged(code: str, tests: str = ADD, **settings: Any) -> Score:
    reward = build([(RewardSettings(verifier="unit_tests", settings=settings), Resources())])[0]
    case = Case(id="case", prompt=(Message("user", "?"),), line=1, columns={"tests": tests})
    return score([reward], [Answer(case, code)])[0].scores[reward.name]


REMOUNT = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
clear = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
def remount():
    return libc.syscall(442, -100, b"/", 0x8000, ctypes.byref(clear), ctypes.c_size_t(32))
def nested():
    return libc.unshare(0x10020000) or remount()
def bounding():
    return [libc.prctl(23, one, 0, 0, 0) for one in range(41)]
def again():
    return libc.mount(b"none", b"/", None, 0x1020, None), libc.mount(b"t", b"/usr/lib", b"tmpfs", 0, None)
def chroot():
    return libc.chroot(b"/tmp")
"""


@pytest.mark.parametrize(
    "tests",
    [
        "assert remount() == -1",
        "assert nested() == -1",
        "assert again() == (-1, -1)",
        "assert chroot() == -1",
        "assert set(bounding()) <= {0, -1} and bounding()[21] == 0",
    ],
)
def test_no_capability_is_left_to_undo_the_cage(tests: str) -> None:
    assert judged(REMOUNT, tests) == 1.0


def test_after_trying_all_of_it_no_file_of_the_host_is_written(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    library = Path(sys.base_prefix) / "lib" / "tenon-was-here"
    attack = """
def write(path):
    for attempt in (remount, nested, again, chroot):
        attempt()
    try:
        open(path, "w").write("x")
    except OSError as error:
        return type(error).__name__
"""
    tests = f"assert write({str(victim)!r}) and write({str(library)!r}) and write('own') is None"
    try:
        assert judged(REMOUNT + attack, tests) == 1.0
        assert (victim.read_text(), library.exists()) == ("kept", False)
    finally:
        library.unlink(missing_ok=True)  # a cage that failed once leaves no failure behind


def test_a_unix_socket_of_the_host_cannot_be_called(tmp_path: Path) -> None:
    path = tmp_path / "listener"
    code = f"""
import socket
def call():
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex({str(path)!r})
def interfaces():
    return [name for _, name in socket.if_nameindex()]
"""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as ours:
        listener.bind(str(path))
        listener.listen()
        ours.connect(str(path))  # it does listen
        assert judged(code, "import errno\nassert call() == errno.ENOENT and interfaces() == ['lo']") == 1.0


FORGED = {
    "the caller's frame": """
import os, sys
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        for held in (frame.f_locals, frame.f_globals):
            if 'word' in held:
                os.write(held['out'], held['word'].encode()); os._exit(0)
        frame = frame.f_back
""",
    "every file": """
import os
def add(a, b):
    for fd in range(64):
        try: os.write(fd, b'{"value": 3, "after": [null, null]}')
        except OSError: pass
    os._exit(0)
""",
    "every object": """
import gc, os
def add(a, b):
    found = [held for held in gc.get_objects() if isinstance(held, dict) and 'tests' in held]
    return 3 if any('assert' in str(held['tests']) for held in found) else 0
""",
    "a value that equals all": """
class Any:
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    def __lt__(self, other): return True
def add(a, b): return Any()
""",
    "a number that equals all": """
class Any(int):
    def __eq__(self, other): return True
    __hash__ = None
def add(a, b): return Any()
""",
    "words of the tests": "def abs(x): return 0\ndef len(x): return 3\ndef add(a, b): return 7",
    "builtins for the tests": """
import gc
peer = next(held for held in gc.get_objects() if type(held).__name__ == 'Peer')
own = {'kind': 'dict', 'value': [['abs', peer.pack(lambda x: 0)]]}
peer.send({'__builtins__': own, 'add': peer.pack(lambda a, b: 7)})
peer.serve()
""",
    "the assertion's class": "import builtins\nbuiltins.AssertionError = str\ndef add(a, b): return 7",
}


@pytest.mark.parametrize("way", FORGED)
def test_a_wrong_answer_cannot_say_that_it_passed(way: str) -> None:
    assert judged(FORGED[way]) == 0.0
    assert judged(FORGED[way], "assert abs(add(1, 2) - 3) < 0.1") == 0.0


def test_the_tests_run_nothing_that_an_answer_names() -> None:
    code = """
import gc
def add(function):
    peer = next(held for held in gc.get_objects() if type(held).__name__ == 'Peer')
    told = []
    for name, value in (('named', ['os', 'getpid']), ('type', 'exec'), ('yours', 1), ('yours', 0)):
        peer.send({'ask': 'call', 'args': [{'kind': name, 'value': value}], 'named': {}})
        told.append('raised' in peer.receive())
    return told
"""
    assert judged(code, "assert add(lambda: 1) == [True, True, True, False]") == 1.0


def test_an_answer_cannot_look_into_the_process_of_its_tests() -> None:
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def look():
    seen = ctypes.create_string_buffer(8)
    place = (ctypes.c_size_t * 2)(ctypes.addressof(seen), 8)  # a fork: mapped over there too
    attached = libc.ptrace(16, os.getppid(), None, None)
    return attached, libc.process_vm_readv(os.getppid(), place, 1, place, 1, 0), ctypes.get_errno()
"""
    assert judged(code, "import errno\nassert look() == (-1, -1, errno.EPERM)") == 1.0


def test_a_callback_opens_nothing_of_the_tests() -> None:
    code = """
def add(function):
    try: return function.__globals__
    except AttributeError: return 'closed'
"""
    assert judged(code, "def mine(): pass\nassert add(mine) == 'closed'") == 1.0


NODES = """
from collections import Counter, namedtuple
from fractions import Fraction
class Node:
    def __init__(self, value, after=None): self.value, self.after = value, after
    def __iter__(self):
        while self: yield self.value; self = self.after
class Short(ValueError): pass
Point = namedtuple('Point', 'x y')
def order(xs, key=None): xs.sort(key=key)
def each(function, xs): return [function(x) for x in xs]
def need(x): raise Short('too short', x)
def count(text): return Counter(text)
def half(x): return Fraction(x, 2)
def swap(node): node.left, node.right = node.right, node.left; return node
"""


@pytest.mark.parametrize(
    "tests",
    [
        "node = Node(1, Node(2))\nassert list(node) == [1, 2] and node.after.value == 2",
        "node = Node(1)\nnode.value = 5\nassert next(iter(node)) == 5",
        "assert isinstance(Node(1), Node) and not isinstance(3, Node)",
        "xs = [3, 1, 2]\norder(xs)\nassert xs == [1, 2, 3]",
        "xs = [3, 1, 2]\norder(xs, key=lambda x: -x)\nassert xs == [3, 2, 1]",
        "assert each(lambda x: x + 1, (1, 2)) == [2, 3] and each(len, ['ab']) == [2]",
        "try: need(2)\nexcept Short as error: assert error.args == ('too short', 2)\nelse: assert 0",
        "try: need(2)\nexcept ValueError: pass\nelse: assert 0",
        "assert count('aab') == {'a': 2, 'b': 1} and count('aab')['a'] == 2",
        "assert Point(1, 2) == (1, 2) and Point(1, 2).y == 2 and half(3) == 1.5 and half(3) * 2 == 3",
        "class Pair: left, right = 1, [2]\npair = Pair()\nassert swap(pair) is pair and pair.left == [2]",
        "def check(candidate):\n    assert candidate(3) == answer.half(3)\ncheck(half)",
    ],
)
def test_tests_use_what_the_answer_made(tests: str) -> None:
    assert judged(NODES, tests) == 1.0
    assert judged(NODES, tests + "\nassert False") == 0.0


# Where there can be no cage


@pytest.fixture
def open_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real cage, on a system that refuses namespaces."""
    source = Path(unit_tests.__file__).with_name("cage.py").read_text()
    refused = source.replace(
        "    if _LIBC.unshare(", "    ctypes.set_errno(1)\n    if True or _LIBC.unshare("
    )
    assert refused != source
    (tmp_path / "cage.py").write_text(refused)
    (tmp_path / "peer.py").write_text(Path(unit_tests.__file__).with_name("peer.py").read_text())
    monkeypatch.setattr(unit_tests, "_CAGE", tmp_path / "cage.py")


@pytest.mark.usefixtures("open_machine")
def test_by_default_an_open_machine_refuses_the_recipe() -> None:
    with pytest.raises(RecipeInvalid, match=r"namespaces are not allowed.*isolation: best_effort"):
        judged(RIGHT)


@pytest.mark.usefixtures("open_machine")
def test_an_answer_is_not_run_when_the_machine_opens_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_tests, "_open", lambda settings: "")
    with pytest.raises(VerifierFailed, match="could not be locked in: namespaces are not allowed"):
        judged(RIGHT)


@pytest.mark.usefixtures("open_machine")
def test_who_asks_for_less_gets_less() -> None:
    assert judged(RIGHT, isolation="best_effort") == 1.0
    assert judged(FORGED["the caller's frame"], isolation="best_effort") == 0.0
