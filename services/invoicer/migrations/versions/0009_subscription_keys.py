"""A subscription may be made under an idempotency key, which makes one only.

The key and the digest of what was asked for stay with the subscription, and never change.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

COLUMNS = """
ALTER TABLE subscriptions
    ADD COLUMN idempotency_key text,
    ADD COLUMN idempotency_digest bytea,
    ADD CONSTRAINT ck_subscriptions_idempotency_key
        CHECK (idempotency_key ~ '^[ -~]{1,255}$'),
    ADD CONSTRAINT ck_subscriptions_idempotency_digest CHECK (
        (idempotency_key IS NULL) = (idempotency_digest IS NULL)
        AND octet_length(idempotency_digest) = 32
    )
"""

ONE_EACH = """
CREATE UNIQUE INDEX uq_subscriptions_idempotency_key
ON subscriptions (idempotency_key, organization_id, mode) WHERE idempotency_key IS NOT NULL
"""

KEEP_KEY = """
CREATE FUNCTION keep_subscription_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the idempotency key of a subscription never changes'
        USING ERRCODE = 'integrity_constraint_violation';
END
$$
"""

TRIGGER = """
CREATE TRIGGER keep_subscription_key BEFORE UPDATE ON subscriptions
FOR EACH ROW WHEN (
    (NEW.idempotency_key, NEW.idempotency_digest)
        IS DISTINCT FROM (OLD.idempotency_key, OLD.idempotency_digest)
)
EXECUTE FUNCTION keep_subscription_key()
"""


def upgrade() -> None:
    """Add the key; subscriptions that exist have none."""
    for statement in (COLUMNS, ONE_EACH, KEEP_KEY, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("DROP FUNCTION keep_subscription_key() CASCADE")
    op.execute(
        "ALTER TABLE subscriptions DROP COLUMN idempotency_key, DROP COLUMN idempotency_digest"
    )
