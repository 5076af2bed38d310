"""SQLAlchemy, lean: what is not needed is not imported, and nothing is missing for others."""

from __future__ import annotations

import subprocess
import sys


def test_the_daemon_carries_no_orm_and_others_can_have_it() -> None:
    """It would be 6 MB, and 60 ms at each start."""
    script = (
        "import sys, batchwatch.daemon\n"
        "assert 'sqlalchemy.orm' not in sys.modules\n"
        "from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine\n"
        "from batchwatch.store.driver import create_async_engine as ours\n"
        "assert ours is create_async_engine\n"
    )

    subprocess.run([sys.executable, "-c", script], check=True)
