"""Invoices for people: what HTML and PDF say, whatever names contain."""

import io
import struct
import zlib
from dataclasses import replace
from datetime import timedelta

import pytest
from pypdf import PdfReader
from pypdf.generic import DictionaryObject

from services.invoicer.checks import CustomerInput
from services.invoicer.credit_checks import GrantInput
from services.invoicer.issuers import LOGO_BYTES_MAX, NO_ISSUER, Issuer
from services.invoicer.rendering.pdf import PdfRenderer
from services.invoicer.rendering.view import View, ViewLine
from services.invoicer.service.documents import Documents, RenderFormat
from services.invoicer.term_checks import ChargeInput
from services.kit.errors import InvalidArgumentError, NotFoundError
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

JANUARY, FEBRUARY = utc("2026-01-01"), utc("2026-02-01")
ISSUER = Issuer("Straße & Söhne", "Weg 1\n10115 Berlin", "DE123", "a@example.com", "IBAN DE00")
NAME = "株式会社山田 Ωmega Жук <script>"


def png(width: int, height: int) -> bytes:
    """A blue rectangle."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x1e\x5a\xc8" * width) * height
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture
def documents(world: World) -> Documents:
    return Documents(world.database, world.clock, PdfRenderer())


async def invoiced(world: World) -> str:
    """January's invoice of a customer with a name of many scripts, and enough lines for pages."""
    await world.customers.put_customer(
        world.tenant, CustomerInput("user_123", name=NAME, email="b@example.com")
    )
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "1234567")
    subscription = await world.subscribe(start=JANUARY, plan=pro_plan(name="#strong[Pro] $x$"))
    for number in range(60):
        charge = ChargeInput("user_123", f"Item {number} *with* a_b \\ <i>", "1234.5")
        await world.charges.create_charge(
            world.tenant, replace(charge, subscription_id=subscription.id)
        )
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    (invoice,) = await world.all_invoices()
    return invoice.id


async def test_a_pdf_says_everything_on_as_many_pages_as_it_takes(
    world: World, documents: Documents
) -> None:
    await documents.set_issuer(world.tenant, replace(ISSUER, logo=png(120, 40)))
    invoice_id = await invoiced(world)
    content, name, customer_id = await documents.render_invoice(
        world.tenant, invoice_id, RenderFormat.PDF
    )
    assert (name, customer_id) == ("INV-000001.pdf", "user_123")
    pages = PdfReader(io.BytesIO(content)).pages
    assert len(pages) >= 2
    assert len(pages[0].images) == 1
    texts = [" ".join(page.extract_text().split()) for page in pages]
    for text in ("Straße & Söhne", "10115 Berlin", "DE123", "Invoice INV-000001", "To pay"):
        assert text in texts[0]
    for text in ("株式会社山田", "Ωmega Жук <script>", "2026-01-01 to 2026-01-31"):
        assert text in texts[0]
    assert "Total 86,415.67 USD" in texts[0]
    whole = " ".join(texts)
    for text in ("#strong[Pro] $x$: base price", "1,234,567", "Item 59 *with* a_b \\ <i>"):
        assert text in whole
    # 100 + 1,224,567 x 0.01 + 60 x 1,234.50
    assert "Total USD 86,415.67" in texts[-1]
    for number, text in enumerate(texts, start=1):
        assert "IBAN DE00" in text
        assert f"{number} / {len(pages)}" in text


async def test_the_sums_never_stand_alone_on_a_page() -> None:
    pages_seen = set()
    for count in range(34, 44):
        lines = tuple(ViewLine(f"Item {number}", "", "", "", "1.00", ()) for number in range(count))
        sums = (("Sum without tax", "9.00"), ("VAT 19 %", "1.71"), ("Total USD", "10.71"))
        view = View("Invoice", "To pay", NO_ISSUER, (), (), lines, sums, "USD", "")
        pages = PdfReader(io.BytesIO(await PdfRenderer().render(view))).pages
        pages_seen.add(len(pages))
        last = pages[-1].extract_text()
        assert f"Item {count - 1}" in last
        assert "Description" in last
        assert "Sum without tax" in last
        assert "Total USD" in last
    assert pages_seen == {1, 2}


NAMES = {
    "NotoSans-Regular": "Ωmega Жук नमूना",
    "NotoSansArabic": "شركة المثال",
    "NotoSansKhmer": "ក្រុមហ៊ុន",
    "NotoSansTamil": "நிறுவனம்",
    "NotoSansTelugu": "సంస్థ",
    "NotoSansThai": "บริษัท ตัวอย่าง",
    "HindSiliguri": "প্রতিষ্ঠান",
    "NotoSansCJKtc": "株式会社山田 존",
}


@pytest.mark.parametrize(("font", "name"), NAMES.items())
async def test_a_name_is_typeset_with_a_font_that_has_its_script(font: str, name: str) -> None:
    view = View("1", "2", NO_ISSUER, (name,), (), (), (("3", "4"),), "USD", "")
    [page] = PdfReader(io.BytesIO(await PdfRenderer().render(view))).pages
    resources = page["/Resources"].get_object()
    assert isinstance(resources, DictionaryObject)
    fonts = resources["/Font"].get_object()
    assert isinstance(fonts, DictionaryObject)
    used = str([each.get_object() for each in fonts.values()])
    assert font in used


async def test_html_says_the_same_and_how_it_came_about(world: World, documents: Documents) -> None:
    await documents.set_issuer(world.tenant, replace(ISSUER, logo=png(2, 1)))
    invoice_id = await invoiced(world)
    content, name, _ = await documents.render_invoice(world.tenant, invoice_id, RenderFormat.HTML)
    page = content.decode()
    assert name == "INV-000001.html"
    for text in ("Straße &amp; Söhne", "株式会社山田 Ωmega Жук &lt;script&gt;", "86,415.67"):
        assert text in page
    assert "1,234,567 - 10,000 included = 1,224,567" in page
    assert 'src="data:image/png;base64,' in page
    assert "<script" not in page
    (invoice,) = await world.all_invoices()
    assert f"Hash: {invoice.hash}" in page


async def test_what_credit_paid_and_what_is_due_stand_below_the_total(
    world: World, documents: Documents
) -> None:
    await world.customers.put_customer(world.tenant, CustomerInput("user_123", currency="USD"))
    await world.credits.grant_credits(world.tenant, GrantInput("user_123", "1000"))
    charge = ChargeInput("user_123", "D", "1234.5", timing="NOW")
    made, _ = await world.charges.create_charge(world.tenant, charge)
    for wanted in RenderFormat:
        content, _, _ = await documents.render_invoice(world.tenant, made.invoice_id, wanted)
        text = content.decode() if wanted is RenderFormat.HTML else pdf_text(content)
        labels = ("Total USD", "Paid by prepaid credits", "Amount due USD")
        assert sorted(labels, key=text.index) == list(labels)
        assert "\N{MINUS SIGN}1,000.00" in text
        assert "234.50" in text.partition(labels[2])[2]


def pdf_text(content: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)


async def test_a_finalized_invoice_keeps_the_issuer_of_its_time(
    world: World, documents: Documents
) -> None:
    async def issued_by() -> str:
        content, _, _ = await documents.render_invoice(world.tenant, invoice_id, RenderFormat.HTML)
        return next(name for name in ("Early", "Old", "New", "") if f">{name}" in content.decode())

    invoice_id = await invoiced(world)
    world.clock.time += timedelta(days=1)
    await documents.set_issuer(world.tenant, Issuer("Old"))
    assert await issued_by() == "Old"  # none was set when it was written: the first there is
    world.clock.time = JANUARY
    await documents.set_issuer(world.tenant, Issuer("Early"))
    world.clock.time = FEBRUARY + timedelta(days=9)
    await documents.set_issuer(world.tenant, Issuer("New"))
    assert await issued_by() == "Early"
    assert await documents.get_issuer(world.tenant) == Issuer("New")


async def test_all_that_is_wrong_with_an_issuer_is_named(
    world: World, documents: Documents
) -> None:
    wrong = Issuer("\n", "x" * 1_001, "\0", "x" * 201, "\t", b"GIF89a")
    with pytest.raises(InvalidArgumentError) as caught:
        await documents.set_issuer(world.tenant, wrong)
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["name", "address", "taxId", "email", "footer", "logo"]
    for logo in (png(1, 1) + b"\0" * LOGO_BYTES_MAX, b"\x89PNG\r\n\x1a\nbroken"):
        with pytest.raises(InvalidArgumentError, match="logo: must be a PNG or JPEG"):
            await documents.set_issuer(world.tenant, Issuer(logo=logo))
    assert await documents.get_issuer(world.tenant) == NO_ISSUER


async def test_the_same_issuer_again_is_no_new_version(world: World, documents: Documents) -> None:
    assert await documents.set_issuer(world.tenant, ISSUER) == ISSUER
    assert await documents.set_issuer(world.tenant, ISSUER) == ISSUER


async def test_another_tenant_s_invoice_is_not_found(world: World, documents: Documents) -> None:
    invoice_id = await invoiced(world)
    with pytest.raises(NotFoundError):
        await documents.render_invoice(new_tenant(), invoice_id, RenderFormat.HTML)
