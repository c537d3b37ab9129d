"""Signing keys and headers of endpoints, between the database, where they are sealed, and use."""

from collections.abc import Mapping

import msgspec
import structlog
from sqlalchemy import func, or_, select, update

from services.kit.database import Database
from services.kit.errors import FieldChecks
from services.notifier import signing
from services.notifier.queue_repository import Target
from services.notifier.sealing import PREFIX_BYTES, Sealer, headers_place, secret_place
from services.notifier.signing import SigningKey
from services.notifier.tables import endpoint_secrets, endpoints

log = structlog.get_logger()

RESEALED_AT_ONCE_MAX = 500


class UnknownKeyError(RuntimeError):
    """The database holds what none of the configured keys opens."""


def choose_key(checks: FieldChecks, kind: str, secret: str) -> SigningKey | None:
    """The caller's own key, else a new one of this kind ("" is HMAC); None: wrong, and noted."""
    if not secret:
        return signing.make_key(kind or signing.HMAC)
    try:
        key = signing.parse_secret(secret)
    except ValueError as error:
        checks.require(False, "secret", str(error))
        return None
    fits = checks.require(kind in ("", key.kind), "secret", "must be of the kind in signature")
    return key if fits else None


def seal_secret(sealer: Sealer, endpoint_id: str, key: SigningKey) -> bytes:
    """What is stored of an endpoint's signing key."""
    return sealer.seal(key.key, secret_place(endpoint_id))


def seal_headers(sealer: Sealer, endpoint_id: str, headers: Mapping[str, str]) -> bytes | None:
    """What is stored of an endpoint's headers."""
    if not headers:
        return None
    return sealer.seal(msgspec.json.encode(dict(headers)), headers_place(endpoint_id))


def open_target(
    sealer: Sealer, endpoint_id: str, target: Target
) -> tuple[dict[str, str], tuple[SigningKey, ...]]:
    """The headers and the signing keys of an endpoint. SealError."""
    headers: dict[str, str] = {}
    if target.sealed_headers is not None:
        opened = sealer.open(target.sealed_headers, headers_place(endpoint_id))
        headers = msgspec.json.decode(opened, type=dict[str, str])
    place = secret_place(endpoint_id)
    keys = (SigningKey(kind, sealer.open(sealed, place)) for kind, sealed in target.secrets)
    return headers, tuple(keys)


async def seal_all(database: Database, sealer: Sealer) -> int:
    """Seal what is plain or sealed with an older key; returns how much. UnknownKeyError."""
    await _check_known(database, sealer)
    resealed = 0
    while moved := await _reseal_secrets(database, sealer):
        resealed += moved
    while moved := await _reseal_headers(database, sealer):
        resealed += moved
    if resealed:
        log.info("secrets_sealed", count=resealed)
    return resealed


async def _check_known(database: Database, sealer: Sealer) -> None:
    for column in (endpoint_secrets.c.sealed, endpoints.c.sealed_headers):
        prefix = func.substring(column, 1, PREFIX_BYTES)
        async with database.transaction() as connection:
            prefixes = await connection.execute(
                select(prefix).where(column.is_not(None)).distinct()
            )
            if not all(sealer.knows(known) for known in prefixes.scalars()):
                raise UnknownKeyError(
                    "The database holds webhook secrets of another USAGEFLOW_WEBHOOK_SECRETS_KEY:"
                    " give that one too, after a comma"
                )


async def _reseal_secrets(database: Database, sealer: Sealer) -> int:
    columns = endpoint_secrets.c
    old = func.substring(columns.sealed, 1, PREFIX_BYTES) != sealer.prefix
    query = (
        select(columns.id, columns.endpoint_id, columns.key, columns.sealed)
        .where(or_(columns.sealed.is_(None), old))
        .order_by(columns.id)
        .limit(RESEALED_AT_ONCE_MAX)
        .with_for_update()
    )
    async with database.transaction() as connection:
        rows = (await connection.execute(query)).all()
        for row in rows:
            place = secret_place(row.endpoint_id)
            plain = row.key if row.sealed is None else sealer.open(row.sealed, place)
            await connection.execute(
                update(endpoint_secrets)
                .where(columns.id == row.id)
                .values(key=None, sealed=sealer.seal(plain, place))
            )
    return len(rows)


async def _reseal_headers(database: Database, sealer: Sealer) -> int:
    columns = endpoints.c
    query = (
        select(columns.id, columns.sealed_headers)
        .where(func.substring(columns.sealed_headers, 1, PREFIX_BYTES) != sealer.prefix)
        .order_by(columns.id)
        .limit(RESEALED_AT_ONCE_MAX)
        .with_for_update()
    )
    async with database.transaction() as connection:
        rows = (await connection.execute(query)).all()
        for row in rows:
            place = headers_place(row.id)
            sealed = sealer.seal(sealer.open(row.sealed_headers, place), place)
            await connection.execute(
                update(endpoints).where(columns.id == row.id).values(sealed_headers=sealed)
            )
    return len(rows)
