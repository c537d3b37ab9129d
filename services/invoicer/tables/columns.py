"""What all tables of invoicer are made of."""

from typing import Any

from sqlalchemy import JSON, Column, DateTime, MetaData, Numeric, Text

from services.kit.database import metadata_naming

metadata = MetaData(naming_convention=metadata_naming)


def tenant_columns() -> tuple[Column[str], Column[str]]:
    """Whose a row is."""
    return (
        Column("organization_id", Text, nullable=False),
        Column("mode", Text, nullable=False),
    )


def time_column(name: str, *, nullable: bool = False) -> Column[object]:
    """An instant."""
    return Column(name, DateTime(timezone=True), nullable=nullable)


def line_columns() -> tuple[Column[Any], ...]:
    """What a line says: of an invoice, or of what a credit note changes of one."""
    return (
        Column("kind", Text, nullable=False),
        Column("metric", Text),
        Column("description", Text, nullable=False),
        Column("quantity", Numeric, nullable=False),
        Column("included_units", Numeric, nullable=False),
        Column("unit_price", Numeric),
        Column("amount", Numeric, nullable=False),
        # What the line bills; an earlier period than the invoice's for late usage.
        time_column("period_start"),
        time_column("period_end"),
        # How the amount came about, as a list of strings.
        Column("steps", JSON, nullable=False),
    )
