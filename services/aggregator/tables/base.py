"""What all tables are part of."""

from sqlalchemy import MetaData

from services.kit.database import metadata_naming

metadata = MetaData(naming_convention=metadata_naming)
