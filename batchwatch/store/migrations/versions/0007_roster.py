"""What the holder of a watch says of it, for the other replicas to read.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it, and when it was said; and that a replica is about to end."""
    op.add_column("leases", sa.Column("said", sa.Text(), nullable=True))
    op.add_column("leases", sa.Column("said_at", sa.BigInteger(), nullable=True))
    op.add_column("replicas", sa.Column("leaving_at", sa.BigInteger(), nullable=True))
