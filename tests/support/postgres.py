"""A real PostgreSQL in a temporary folder: one for the whole session, a fresh database for each test.

It listens on a Unix socket only, runs without root, and ends with the test run, however that ends.
"""

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from registry.store.database import upgrade
from registry.store.postgres import PostgresDatabase

ROOT = Path(__file__).parents[2]
ROLE = "tenon"
SUPERUSER = "postgres"
_TEMPLATE = "migrated"
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    # The machine does not crash in a test, and what the server wrote survives a server that does.
    "fsync": "off",
    "autovacuum": "off",
}
# Its standard input is a pipe from the tests: whatever ends them closes it. A line instead of the end means
# that the folder is still needed.
_TIED = """
"$@" </dev/null & server=$!
if read -r _; then folder=; else folder=$PWD; fi
kill -QUIT $server; wait $server
[ -z "$folder" ] || rm -rf -- "$folder"
"""


@dataclass
class PostgresServer:
    folder: Path
    programs: Path
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, database: str, *, role: str = ROLE) -> str:
        return f"postgresql://{role}@/{database}?host={self.folder}"

    def admin(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """As superuser: sees past every wall. Close it."""
        return psycopg.connect(self.url(database, role=SUPERUSER), autocommit=True)

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[str]:
        """URL of a database of its own; empty tables, or none."""
        name = f"test_{next(self._numbers)}"
        with self.admin() as admin:
            if (
                migrated
                and not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_TEMPLATE]).fetchone()
            ):
                self._create(admin, _TEMPLATE)
                with PostgresDatabase(self.url(_TEMPLATE)) as database:
                    upgrade(database)
            self._create(admin, name, _TEMPLATE if migrated else "template0")
        try:
            yield self.url(name)
        finally:
            with self.admin() as admin:
                admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def _create(
        self, admin: "psycopg.Connection[tuple[object, ...]]", name: str, template: str = "template0"
    ) -> None:
        made = SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY FILE_COPY")  # 20 ms, WAL_LOG 35
        admin.execute(made.format(Identifier(name), Identifier(ROLE), Identifier(template)))

    def crash(self) -> None:
        """As `pg_ctl stop -m immediate`: every connection is cut and nothing is tidied up."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"crash\n")
        self.process.stdin.close()
        self.process.wait(30)

    def restart(self) -> None:
        self.process = _spawn(self.folder, self.programs, self.log)
        self._await_ready()

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(30)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.admin().close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text()) from None
            time.sleep(0.02)


@contextmanager
def running() -> Iterator[PostgresServer]:
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket's path has 107 characters
    user = _user()
    if os.getuid() == 0:
        shutil.chown(folder, user)
    try:
        subprocess.run(
            [
                *(programs / "initdb", "-D", folder / "data", "-U", SUPERUSER),
                *("-A", "trust", "-N", "--no-instructions"),
                # Not the order of bytes: what must not depend on the server's order of letters shows.
                *("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"),
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            user=user if os.getuid() == 0 else None,
            group=pwd.getpwnam(user).pw_gid if os.getuid() == 0 else None,
            extra_groups=[] if os.getuid() == 0 else None,
        )
        log = (folder / "log").open("wb")
        server = PostgresServer(folder, programs, _spawn(folder, programs, log), log)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try:
        server._await_ready()
        with server.admin() as admin:
            admin.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(ROLE)))
        yield server
    finally:
        server.stop()


def _spawn(folder: Path, programs: Path, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    settings = _SETTINGS | {"unix_socket_directories": str(folder)}
    user = _user()
    return subprocess.Popen(
        [
            *("sh", "-c", _TIED, "sh", programs / "postgres", "-D", folder / "data"),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        cwd=folder,
        start_new_session=True,  # a Ctrl-C is for the tests; they then end the server
        user=user if os.getuid() == 0 else None,
        group=pwd.getpwnam(user).pw_gid if os.getuid() == 0 else None,
        extra_groups=[] if os.getuid() == 0 else None,
    )


def _programs() -> Path:
    found = subprocess.run([ROOT / "scripts" / "find-postgres"], capture_output=True, text=True, check=False)
    if found.returncode:  # never a skip: without a server nothing about PostgreSQL is known
        pytest.fail(found.stderr, pytrace=False)
    return Path(found.stdout.strip())


def _user() -> str:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return getpass.getuser()
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)
