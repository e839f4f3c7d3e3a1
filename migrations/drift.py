"""`python -m migrations.drift`: exit 1 when the tables in the code are not what the migrations make."""

import sys
import tempfile

from app.db.database import make_engine
from app.db.migrate import downgrade, upgrade
from app.db.schema import find_drift


def main() -> int:
    """Migrate an empty SQLite database up, compare, and down again."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/drift.db"
        upgrade(url)
        engine = make_engine(url)
        drift = find_drift(engine)
        engine.dispose()
        downgrade(url)
    for difference in drift:
        sys.stderr.write(f"not in a migration: {difference}\n")
    if drift:
        sys.stderr.write("write one: see docs/how-to/change-the-database.md\n")
    return 1 if drift else 0


if __name__ == "__main__":
    sys.exit(main())
