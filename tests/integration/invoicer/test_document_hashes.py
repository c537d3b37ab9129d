"""The chain of hashes over invoices and credit notes, recomputed with code of the test's own."""

import hashlib
import importlib.util
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.pricing.usage import MetricUsage
from services.invoicer.repository import invoices
from services.invoicer.repository.closing import open_periods
from services.invoicer.settings import LATE
from services.invoicer.term_checks import ChargeInput, CreditNoteInput
from services.kit.database import Database
from services.kit.ids import new_id
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, utc

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")
# What a JSON string has to escape, and what it need not.
NOTHING = MetricUsage(Decimal(0))
ODD = 'a "quote", \\ / \N{SNOWMAN} \N{GRINNING FACE}'


async def documents_of(world: World) -> None:
    """Three invoices, one of them without a subscription, and two credit notes."""
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "12000.5")
    await world.subscribe(start=JANUARY)
    world.at(MARCH + GRACE)
    assert await world.close_all() == 2
    charge = ChargeInput("user_123", ODD, "0.1", currency="USD", timing="NOW")
    await world.charges.create_charge(world.tenant, charge)
    (first, *_) = await world.all_invoices()
    for amount in ("1.00", "2.50"):
        given = CreditNoteInput(first.id, ODD, ((1, amount),))
        await world.credit_notes.create_credit_note(world.tenant, given)


async def rows(database: Database, query: str) -> list[dict[str, Any]]:
    """What a query, or a statement that has to fail, tells."""
    async with database.transaction() as connection:
        return [dict(row) for row in (await connection.execute(text(query))).mappings()]


def plain(value: Any) -> Any:
    """As it stands in the JSON that is hashed."""
    if isinstance(value, Decimal):
        digits = f"{value:f}"
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    return value


def canonical(row: dict[str, Any]) -> bytes:
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


_NOT_HASHED = {
    "invoices": ["status", "series", "sequence", "failed_payments", "paid_time", "void_time"],
    "credit_notes": [
        *("series", "sequence", "lines_count", "idempotency_key", "content_digest"),
        # Those of late usage have changes besides; the audit's tests hash them.
        *("changes_count", "reading_id", "next_invoice_id"),
    ],
}


async def contents(database: Database, table: str, kind: str, parts: dict[str, str]) -> list[bytes]:
    """What is hashed of each document, in the order of the numbers."""
    of_document = f"{kind}_id"
    found = []
    for document in await rows(database, f"SELECT * FROM {table} ORDER BY sequence"):
        content = {key: plain(value) for key, value in document.items()}
        for name, part in parts.items():
            query = f"SELECT * FROM {part} WHERE {of_document} = '{document['id']}'"
            content[name] = [
                {
                    key: plain(value)
                    for key, value in row.items()
                    if key not in ("organization_id", "mode", of_document, "invoice_id")
                }
                for row in await rows(database, f"{query} ORDER BY position")
            ]
        for name in _NOT_HASHED[table]:
            del content[name]
        for name in ("exact_period_start", "exact_period_end"):
            # Those of charges have none, and had none when they were first hashed.
            if name in content and content[name] is None:
                del content[name]
        found.append(canonical({**content, "format": 1, "type": kind}))
    return found


async def chain(database: Database, series: str) -> list[dict[str, Any]]:
    query = f"SELECT * FROM document_hashes WHERE series = '{series}' ORDER BY sequence"
    return await rows(database, query)


INVOICE_PARTS = {"lines": "invoice_lines", "taxes": "invoice_taxes"}
NOTE_PARTS = {"lines": "credit_note_lines"}


async def test_each_document_holds_the_hash_of_its_content_and_of_the_one_before(
    world: World,
) -> None:
    await documents_of(world)
    told = [invoice.hash for invoice in await world.all_invoices()]
    for series, table, kind, parts, count in (
        ("INV", "invoices", "invoice", INVOICE_PARTS, 3),
        ("CN", "credit_notes", "credit_note", NOTE_PARTS, 2),
    ):
        previous = bytes(32)
        hashes = await chain(world.database, series)
        written = await contents(world.database, table, kind, parts)
        assert len(hashes) == len(written) == count
        for number, (stored, content) in enumerate(zip(hashes, written, strict=True), start=1):
            assert stored["sequence"] == number
            assert stored["previous_hash"] == previous
            assert stored["content_hash"] == hashlib.sha256(content).digest(), content
            previous = hashlib.sha256(previous + stored["content_hash"]).digest()
            assert stored["hash"] == previous
        if series == "INV":
            assert told == [stored["hash"].hex() for stored in hashes]


async def test_each_tenant_has_chains_of_its_own(world: World) -> None:
    await documents_of(world)
    other = new_tenant()
    await world.subscribe(start=JANUARY, tenant=other)
    assert await world.close_all() == 2
    (first, _) = await world.all_invoices(other)
    query = f"SELECT previous_hash FROM document_hashes WHERE document_id = '{first.id}'"
    assert await rows(world.database, query) == [{"previous_hash": bytes(32)}]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE document_hashes SET hash = sha256(hash)",
        "DELETE FROM document_hashes",
        "TRUNCATE document_hashes",
    ],
)
async def test_a_hash_never_changes(world: World, statement: str) -> None:
    await documents_of(world)
    with pytest.raises(DBAPIError, match="it never changes"):
        await rows(world.database, statement)


async def test_no_invoice_is_finalized_without_a_hash(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    invoice_id, now = new_id("inv"), world.clock()
    with pytest.raises(DBAPIError, match="INV-000001 is finalized without its hash"):
        async with world.database.transaction() as connection:
            (due,) = await open_periods(connection, [subscription], LATE)
            usages = [dict.fromkeys(("API_CALL", "AI_TOKEN"), NOTHING)]
            draft = due.draft(usages)
            await invoices.insert_drafts(connection, world.tenant, {invoice_id: draft}, now)
            await invoices.take_numbers(connection, world.tenant, "INV", 1)
            await connection.execute(
                text(
                    "UPDATE invoices SET status = 'PENDING', sequence = 1, number = 'INV-000001', "
                    "finalize_time = now()"
                )
            )


_CHAIN = "INSERT INTO document_hashes (organization_id, mode, series, sequence{}) VALUES {}"


async def test_a_hash_is_that_of_a_document_with_a_predecessor(world: World) -> None:
    await documents_of(world)
    whose = f"'{world.tenant.organization_id}', '{world.tenant.mode}'"
    with pytest.raises(DBAPIError, match="there is no document 9 of series INV"):
        await rows(world.database, _CHAIN.format("", f"({whose}, 'INV', 9)"))
    await forget_hashes(world.database)
    with pytest.raises(DBAPIError, match="document 2 of series INV has no predecessor"):
        await rows(world.database, _CHAIN.format("", f"({whose}, 'INV', 2)"))


async def test_what_a_statement_gives_as_hashes_is_not_taken(world: World) -> None:
    await documents_of(world)
    before = await chain(world.database, "INV")
    await forget_hashes(world.database)
    zeros = "decode(repeat('00', 32), 'hex')"
    whose = f"'{world.tenant.organization_id}', '{world.tenant.mode}', 'INV'"
    values = ", ".join(f"({whose}, {n}, 'x', 1, {zeros}, {zeros}, {zeros})" for n in (1, 2, 3))
    columns = ", document_id, format, previous_hash, content_hash, hash"
    await run(world.database, _CHAIN.format(columns, values))
    assert await chain(world.database, "INV") == before


async def test_documents_from_before_the_chain_get_the_same_hashes(world: World) -> None:
    await documents_of(world)
    before = [await chain(world.database, series) for series in ("INV", "CN")]
    migration = load_migration()
    await forget_hashes(world.database)
    await run(world.database, migration.FILL)
    assert [await chain(world.database, series) for series in ("INV", "CN")] == before


async def run(database: Database, statement: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(statement))


async def forget_hashes(database: Database) -> None:
    """As only the owner of the table can, who may switch off what keeps its rows."""
    async with database.transaction() as connection:
        for statement in (
            "ALTER TABLE document_hashes DISABLE TRIGGER USER",
            "DELETE FROM document_hashes",
            "ALTER TABLE document_hashes ENABLE TRIGGER USER",
        ):
            await connection.execute(text(statement))


def load_migration() -> Any:
    path = next(Path("services/invoicer/migrations/versions").glob("0012_*.py"))
    spec = importlib.util.spec_from_file_location("migration", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
