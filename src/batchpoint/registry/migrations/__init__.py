"""Changes of the schema, one module each in ``versions/``. They travel inside the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

HEAD = "0008"
"""Version of the schema that this program works with."""

KNOWN = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""Every version that this program can start from, the oldest first."""


def upgrade(connection: Connection) -> None:
    """Bring the schema from whatever it is to ``HEAD``, inside the connection's transaction."""
    from alembic import command  # noqa: PLC0415 - slow to import and rarely needed: most starts find the schema at HEAD
    from alembic.config import Config  # noqa: PLC0415 - the same

    config = Config()
    config.set_main_option("script_location", "batchpoint.registry:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
