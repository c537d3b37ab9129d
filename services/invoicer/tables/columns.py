"""What all tables of invoicer are made of."""

from sqlalchemy import Column, DateTime, MetaData, Text

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
