"""One PostgreSQL database and role for each service; none can connect to another's."""

import asyncio
import base64
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from asyncpg.exceptions import (
    DuplicateDatabaseError,
    DuplicateObjectError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
)

PREFIX = "usageflow_"
CONNECT_TIMEOUT_S = 10.0
STATEMENT_TIMEOUT_S = 30.0
SCRAM_ITERATIONS = 4096  # PostgreSQL's own default (scram_iterations)
SCRAM_SALT_BYTES = 16


# asyncpg has no annotations.
connect: Any = asyncpg.connect


@asynccontextmanager
async def connected(url: str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> AsyncIterator[Any]:
    """An asyncpg.Connection that is closed at the end; raises what asyncpg.connect() raises."""
    connection = await connect(url, timeout=timeout_s, command_timeout=STATEMENT_TIMEOUT_S)
    try:
        yield connection
    finally:
        await connection.close()


def database_url(admin_url: str, name: str, password: str) -> str:
    """The URL of the database `name` for the role `name` on the server of `admin_url`."""
    parts = urlsplit(admin_url)
    server = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"{name}:{password}@{server}", f"/{name}", parts.query, ""))


async def ensure_databases(admin_url: str, passwords: Mapping[str, str]) -> dict[str, str]:
    """Make what is missing of the databases and roles; URLs by service. Safe to repeat.

    `passwords` are by service. A role's own login is tried first, so that nothing is changed, and
    no administrator's rights are needed, when all is there already.
    """
    urls = {
        service: database_url(admin_url, PREFIX + service, password)
        for service, password in passwords.items()
    }
    await asyncio.gather(
        *(
            ensure_database(admin_url, PREFIX + service, passwords[service], urls[service])
            for service in urls
        )
    )
    return urls


async def ensure_database(admin_url: str, name: str, password: str, url: str) -> None:
    """Make the role and the database `name` unless the role can already connect to it."""
    try:
        async with connected(url):
            return
    except (InvalidAuthorizationSpecificationError, InvalidCatalogNameError):
        pass  # no such role or another password; no such database
    async with connected(admin_url) as admin:
        await make_role(admin, name, password)
        await make_database(admin, name)


async def make_role(admin: Any, name: str, password: str) -> None:
    """Make a role that can log in and nothing else, or give it this password.

    The server gets the password as a SCRAM verifier only, so that no log can show it.
    """
    verifier = scram_verifier(password, os.urandom(SCRAM_SALT_BYTES))
    try:
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{verifier}'")
    except DuplicateObjectError:
        await admin.execute(f"ALTER ROLE {name} LOGIN PASSWORD '{verifier}'")


async def make_database(admin: Any, name: str) -> None:
    """Make a database that only its owner, the role of the same name, can connect to."""
    # An administrator that is not a superuser may make a database only for a role it belongs to.
    if not await admin.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        await admin.execute(f"GRANT {name} TO CURRENT_USER")
    try:
        await admin.execute(f"CREATE DATABASE {name} OWNER {name}")
    except DuplicateDatabaseError:
        await admin.execute(f"ALTER DATABASE {name} OWNER TO {name}")
    await admin.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")


async def close_shared_databases(admin_url: str) -> None:
    """On a server of our own: keep the services' roles out of `postgres` and `template1` too."""
    async with connected(admin_url) as admin:
        await admin.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")


def scram_verifier(password: str, salt: bytes) -> str:
    """What PostgreSQL stores of a password: RFC 5803's form, RFC 7677's SCRAM-SHA-256.

    For ASCII passwords, which SASLprep (RFC 4013) leaves as they are.
    """
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
