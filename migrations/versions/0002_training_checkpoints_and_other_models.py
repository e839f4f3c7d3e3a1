"""training checkpoints and other models.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_graphs",
        sa.Column("job_id", sa.String(length=30), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_graphs_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "step", name=op.f("pk_job_graphs")),
    )
    op.create_table(
        "job_models",
        sa.Column("job_id", sa.String(length=30), nullable=False),
        sa.Column("model_id", sa.String(length=30), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_models_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_job_models_model_id")),
        sa.PrimaryKeyConstraint("job_id", "model_id", name=op.f("pk_job_models")),
    )
    with op.batch_alter_table("job_models", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_models_model_id"), ["model_id"], unique=False)

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("counted_from", sa.Integer(), server_default="1", nullable=False))
        batch_op.add_column(sa.Column("partial_step", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("partial_sha256", sa.String(length=64), nullable=True))
        batch_op.create_index(
            "ix_jobs_partial_sha256",
            ["partial_sha256"],
            unique=False,
            sqlite_where=sa.text("partial_sha256 IS NOT NULL"),
            postgresql_where=sa.text("partial_sha256 IS NOT NULL"),
        )


def downgrade() -> None:
    # Not by copying the table: on SQLite the events and tags would go with the old one.
    with op.batch_alter_table("jobs", schema=None, recreate="never") as batch_op:
        batch_op.drop_index(
            "ix_jobs_partial_sha256",
            sqlite_where=sa.text("partial_sha256 IS NOT NULL"),
            postgresql_where=sa.text("partial_sha256 IS NOT NULL"),
        )
        batch_op.drop_column("partial_sha256")
        batch_op.drop_column("partial_step")
        batch_op.drop_column("counted_from")

    with op.batch_alter_table("job_models", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_models_model_id"))

    op.drop_table("job_models")
    op.drop_table("job_graphs")
