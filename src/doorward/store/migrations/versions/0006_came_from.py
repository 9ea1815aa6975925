"""Where a node's map stream comes from."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column; programs from before do not miss it."""
    op.add_column("node_observations", sa.Column("came_from", sa.LargeBinary(), nullable=True))
