"""reliability and projects.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.String(length=30), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_id", sa.String(length=30), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=128), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("project", sa.String(length=64), server_default="default", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.create_index("ix_audit_events_project_id", ["project", "id"], unique=False)

    op.create_table(
        "kept_answers",
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project", "key", name=op.f("pk_kept_answers")),
    )
    with op.batch_alter_table("kept_answers", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_kept_answers_created_at"), ["created_at"], unique=False)

    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=30), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("old_secret_sha256", sa.String(length=64), nullable=True),
        sa.Column("old_works_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("project", sa.String(length=64), server_default="default", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
    )
    op.create_table(
        "projects",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_projects")),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=30), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("tus_metadata", sa.String(length=4096), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project", sa.String(length=64), server_default="default", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    with op.batch_alter_table("uploads", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_uploads_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_uploads_sha256"), ["sha256"], unique=False)

    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(length=30), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=True),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("secret", sa.String(length=100), nullable=False),
        sa.Column("previous_secret", sa.String(length=100), nullable=True),
        sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_reason", sa.String(length=300), nullable=True),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project", sa.String(length=64), server_default="default", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    with op.batch_alter_table("webhooks", schema=None) as batch_op:
        batch_op.create_index("ix_webhooks_project_id", ["project", "id"], unique=False)

    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(length=30), nullable=False),
        sa.Column("webhook_id", sa.String(length=30), nullable=False),
        sa.Column("event_id", sa.String(length=30), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project", sa.String(length=64), server_default="default", nullable=False),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    with op.batch_alter_table("webhook_deliveries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_webhook_deliveries_created_at"), ["created_at"], unique=False)
        batch_op.create_index(
            "ix_webhook_deliveries_next_at",
            ["next_at"],
            unique=False,
            sqlite_where=sa.text("next_at IS NOT NULL"),
            postgresql_where=sa.text("next_at IS NOT NULL"),
        )
        batch_op.create_index("ix_webhook_deliveries_webhook_id_id", ["webhook_id", "id"], unique=False)

    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", sa.String(length=30), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(length=300), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["webhook_deliveries.id"], name=op.f("fk_webhook_attempts_delivery_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_webhook_attempts")),
    )
    with op.batch_alter_table("artifacts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("project", sa.String(length=64), server_default="default", nullable=False))
        batch_op.create_index("ix_artifacts_project_id", ["project", "id"], unique=False)

    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("handed_back", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("lost", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("not_before", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("project", sa.String(length=64), server_default="default", nullable=False))
        batch_op.create_index(
            "ix_datasets_deleted_at",
            ["deleted_at"],
            unique=False,
            sqlite_where=sa.text("deleted_at IS NOT NULL"),
            postgresql_where=sa.text("deleted_at IS NOT NULL"),
        )
        batch_op.create_index("ix_datasets_project_id", ["project", "id"], unique=False)

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("queue", sa.String(length=8), server_default="cpu", nullable=False))
        batch_op.add_column(sa.Column("waiting_for", sa.String(length=8), nullable=True))
        batch_op.add_column(sa.Column("rank", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("queue_s", sa.Double(), server_default="86400", nullable=False))
        batch_op.add_column(sa.Column("queue_until", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("not_before", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("lost", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("fingerprint", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("reused_job_id", sa.String(length=30), nullable=True))
        batch_op.add_column(sa.Column("retried_job_id", sa.String(length=30), nullable=True))
        batch_op.add_column(sa.Column("request_id", sa.String(length=128), nullable=True))
        batch_op.add_column(sa.Column("traceparent", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("project", sa.String(length=64), server_default="default", nullable=False))
        batch_op.drop_index(batch_op.f("ix_jobs_model_id"))
        batch_op.drop_index(batch_op.f("ix_jobs_state_priority_id"))
        batch_op.create_index(
            "ix_jobs_checkpoint_sha256",
            ["checkpoint_sha256"],
            unique=False,
            sqlite_where=sa.text("checkpoint_sha256 IS NOT NULL"),
            postgresql_where=sa.text("checkpoint_sha256 IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_jobs_fingerprint_project",
            ["fingerprint", "project"],
            unique=False,
            sqlite_where=sa.text("fingerprint IS NOT NULL"),
            postgresql_where=sa.text("fingerprint IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_jobs_finished_at",
            ["finished_at"],
            unique=False,
            sqlite_where=sa.text("finished_at IS NOT NULL"),
            postgresql_where=sa.text("finished_at IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_jobs_lease_until",
            ["lease_until"],
            unique=False,
            sqlite_where=sa.text("lease_until IS NOT NULL"),
            postgresql_where=sa.text("lease_until IS NOT NULL"),
        )
        batch_op.create_index("ix_jobs_model_id_id", ["model_id", "id"], unique=False)
        batch_op.create_index("ix_jobs_project_id", ["project", "id"], unique=False)
        batch_op.create_index("ix_jobs_project_state_id", ["project", "state", "id"], unique=False)
        batch_op.create_index(
            "ix_jobs_not_before",
            ["not_before"],
            unique=False,
            sqlite_where=sa.text("not_before IS NOT NULL"),
            postgresql_where=sa.text("not_before IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_jobs_queue_until",
            ["queue_until"],
            unique=False,
            sqlite_where=sa.text("queue_until IS NOT NULL"),
            postgresql_where=sa.text("queue_until IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_jobs_waiting_for_queue_project_rank_id",
            ["waiting_for", "queue", "project", "rank", "id"],
            unique=False,
            sqlite_where=sa.text("waiting_for IS NOT NULL"),
            postgresql_where=sa.text("waiting_for IS NOT NULL"),
        )

    with op.batch_alter_table("job_graphs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_graphs_sha256"), ["sha256"], unique=False)

    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.add_column(sa.Column("handed_back", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("lost", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("not_before", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("project", sa.String(length=64), server_default="default", nullable=False))
        batch_op.create_index(
            "ix_models_deleted_at",
            ["deleted_at"],
            unique=False,
            sqlite_where=sa.text("deleted_at IS NOT NULL"),
            postgresql_where=sa.text("deleted_at IS NOT NULL"),
        )
        batch_op.create_index("ix_models_project_id", ["project", "id"], unique=False)

    now = sa.func.current_timestamp()
    op.execute(
        sa.insert(sa.table("projects", sa.column("name"), sa.column("created_at"))).values(
            name="default", created_at=now
        )
    )
    jobs = sa.table(
        "jobs",
        *(
            sa.column(name)
            for name in ("id", "state", "spec", "queue", "waiting_for", "checkpoint_step", "checkpoint_sha256")
        ),
    )
    op.execute(sa.update(jobs).where(sa.cast(jobs.c.spec, sa.Text).like('%"device": "cuda"%')).values(queue="cuda"))
    # The next sweep sees which of them can start.
    op.execute(sa.update(jobs).where(jobs.c.state == "queued").values(waiting_for="inputs"))
    over = jobs.c.state.in_(("succeeded", "failed", "cancelled"))
    op.execute(sa.update(jobs).where(over).values(checkpoint_step=None, checkpoint_sha256=None))
    graphs = sa.table("job_graphs", sa.column("job_id"))
    op.execute(sa.delete(graphs).where(graphs.c.job_id.in_(sa.select(jobs.c.id).where(over))))


def downgrade() -> None:
    # Not by copying the tables: on SQLite what refers to their rows would go with the old ones.
    with op.batch_alter_table("models", schema=None, recreate="never") as batch_op:
        batch_op.drop_index("ix_models_project_id")
        batch_op.drop_index(
            "ix_models_deleted_at",
            sqlite_where=sa.text("deleted_at IS NOT NULL"),
            postgresql_where=sa.text("deleted_at IS NOT NULL"),
        )
        batch_op.drop_column("project")
        batch_op.drop_column("not_before")
        batch_op.drop_column("lost")
        batch_op.drop_column("handed_back")
        batch_op.drop_column("deleted_at")

    with op.batch_alter_table("jobs", schema=None, recreate="never") as batch_op:
        batch_op.drop_index(
            "ix_jobs_waiting_for_queue_project_rank_id",
            sqlite_where=sa.text("waiting_for IS NOT NULL"),
            postgresql_where=sa.text("waiting_for IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_jobs_not_before",
            sqlite_where=sa.text("not_before IS NOT NULL"),
            postgresql_where=sa.text("not_before IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_jobs_queue_until",
            sqlite_where=sa.text("queue_until IS NOT NULL"),
            postgresql_where=sa.text("queue_until IS NOT NULL"),
        )
        batch_op.drop_index("ix_jobs_project_state_id")
        batch_op.drop_index("ix_jobs_project_id")
        batch_op.drop_index("ix_jobs_model_id_id")
        batch_op.drop_index(
            "ix_jobs_lease_until",
            sqlite_where=sa.text("lease_until IS NOT NULL"),
            postgresql_where=sa.text("lease_until IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_jobs_finished_at",
            sqlite_where=sa.text("finished_at IS NOT NULL"),
            postgresql_where=sa.text("finished_at IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_jobs_fingerprint_project",
            sqlite_where=sa.text("fingerprint IS NOT NULL"),
            postgresql_where=sa.text("fingerprint IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_jobs_checkpoint_sha256",
            sqlite_where=sa.text("checkpoint_sha256 IS NOT NULL"),
            postgresql_where=sa.text("checkpoint_sha256 IS NOT NULL"),
        )
        batch_op.create_index(batch_op.f("ix_jobs_state_priority_id"), ["state", "priority", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_jobs_model_id"), ["model_id"], unique=False)
        batch_op.drop_column("project")
        batch_op.drop_column("traceparent")
        batch_op.drop_column("request_id")
        batch_op.drop_column("retried_job_id")
        batch_op.drop_column("reused_job_id")
        batch_op.drop_column("fingerprint")
        batch_op.drop_column("lost")
        batch_op.drop_column("not_before")
        batch_op.drop_column("queue_until")
        batch_op.drop_column("queue_s")
        batch_op.drop_column("rank")
        batch_op.drop_column("waiting_for")
        batch_op.drop_column("queue")

    with op.batch_alter_table("job_graphs", schema=None, recreate="never") as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_graphs_sha256"))

    with op.batch_alter_table("datasets", schema=None, recreate="never") as batch_op:
        batch_op.drop_index("ix_datasets_project_id")
        batch_op.drop_index(
            "ix_datasets_deleted_at",
            sqlite_where=sa.text("deleted_at IS NOT NULL"),
            postgresql_where=sa.text("deleted_at IS NOT NULL"),
        )
        batch_op.drop_column("project")
        batch_op.drop_column("not_before")
        batch_op.drop_column("lost")
        batch_op.drop_column("handed_back")
        batch_op.drop_column("deleted_at")

    with op.batch_alter_table("artifacts", schema=None, recreate="never") as batch_op:
        batch_op.drop_index("ix_artifacts_project_id")
        batch_op.drop_column("project")

    op.drop_table("webhook_attempts")
    with op.batch_alter_table("webhook_deliveries", schema=None, recreate="never") as batch_op:
        batch_op.drop_index("ix_webhook_deliveries_webhook_id_id")
        batch_op.drop_index(
            "ix_webhook_deliveries_next_at",
            sqlite_where=sa.text("next_at IS NOT NULL"),
            postgresql_where=sa.text("next_at IS NOT NULL"),
        )
        batch_op.drop_index(batch_op.f("ix_webhook_deliveries_created_at"))

    op.drop_table("webhook_deliveries")
    with op.batch_alter_table("webhooks", schema=None, recreate="never") as batch_op:
        batch_op.drop_index("ix_webhooks_project_id")

    op.drop_table("webhooks")
    with op.batch_alter_table("uploads", schema=None, recreate="never") as batch_op:
        batch_op.drop_index(batch_op.f("ix_uploads_sha256"))
        batch_op.drop_index(batch_op.f("ix_uploads_expires_at"))

    op.drop_table("uploads")
    op.drop_table("projects")
    op.drop_table("keys")
    with op.batch_alter_table("kept_answers", schema=None, recreate="never") as batch_op:
        batch_op.drop_index(batch_op.f("ix_kept_answers_created_at"))

    op.drop_table("kept_answers")
    with op.batch_alter_table("audit_events", schema=None, recreate="never") as batch_op:
        batch_op.drop_index("ix_audit_events_project_id")

    op.drop_table("audit_events")
