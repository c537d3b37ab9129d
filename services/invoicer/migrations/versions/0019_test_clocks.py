"""Test clocks: the time of a customer, or of a whole organization, in test mode.

Live subscriptions can't have one: mode is in the foreign key, and a clock's mode is test.
"""

from alembic import op

revision = "0019"
down_revision = "0018"

STATEMENTS = (
    """
    CREATE TABLE test_clocks (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        customer_id text,
        now_time timestamptz NOT NULL,
        target_time timestamptz NOT NULL,
        ready boolean NOT NULL,
        accept_time timestamptz NOT NULL,
        create_time timestamptz NOT NULL,
        end_time timestamptz,
        revision bigint NOT NULL DEFAULT 1,
        told_revision bigint NOT NULL DEFAULT 0,
        CONSTRAINT pk_test_clocks PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT fk_test_clocks_customers FOREIGN KEY (organization_id, mode, customer_id)
            REFERENCES customers (organization_id, mode, id),
        CONSTRAINT ck_test_clocks_mode CHECK (mode = 'test'),
        CONSTRAINT ck_test_clocks_times CHECK (now_time <= target_time),
        CONSTRAINT ck_test_clocks_ready CHECK (NOT ready OR now_time = target_time),
        CONSTRAINT ck_test_clocks_revisions CHECK (told_revision <= revision)
    )
    """,
    # One at a time; the trigger below sees to it that an organization's excludes customers' ones.
    """
    CREATE UNIQUE INDEX uq_test_clocks_organization ON test_clocks (organization_id, mode)
        WHERE end_time IS NULL AND customer_id IS NULL
    """,
    """
    CREATE UNIQUE INDEX uq_test_clocks_customer ON test_clocks (organization_id, mode, customer_id)
        WHERE end_time IS NULL AND customer_id IS NOT NULL
    """,
    "CREATE INDEX ix_test_clocks_advancing ON test_clocks (create_time) "
    "WHERE NOT ready AND end_time IS NULL",
    "CREATE INDEX ix_test_clocks_untold ON test_clocks (create_time) "
    "WHERE told_revision < revision",
    # Whoever starts a subscription and whoever makes a clock see each other.
    """
    CREATE FUNCTION lock_test_clocks(organization text, shared boolean) RETURNS void
    LANGUAGE plpgsql AS $$
    DECLARE
        key bigint := hashtextextended('test_clocks/' || organization, 0);
    BEGIN
        IF shared THEN
            PERFORM pg_advisory_xact_lock_shared(key);
        ELSE
            PERFORM pg_advisory_xact_lock(key);
        END IF;
    END
    $$
    """,
    """
    CREATE FUNCTION begin_test_clock() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM lock_test_clocks(NEW.organization_id, false);
        IF EXISTS (
            SELECT FROM test_clocks c
            WHERE (c.organization_id, c.mode) = (NEW.organization_id, NEW.mode)
                AND c.end_time IS NULL
                AND (c.customer_id IS NULL) <> (NEW.customer_id IS NULL)
        ) THEN
            RAISE EXCEPTION 'a test clock of all customers excludes those of single ones'
                USING ERRCODE = 'unique_violation';
        END IF;
        RETURN NEW;
    END
    $$
    """,
    "CREATE TRIGGER begin_test_clock BEFORE INSERT ON test_clocks "
    "FOR EACH ROW EXECUTE FUNCTION begin_test_clock()",
    """
    CREATE FUNCTION keep_test_clock() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (NEW.organization_id, NEW.mode, NEW.id, NEW.customer_id, NEW.create_time)
            IS DISTINCT FROM
            (OLD.organization_id, OLD.mode, OLD.id, OLD.customer_id, OLD.create_time)
        THEN
            RAISE EXCEPTION 'whose a test clock is never changes';
        END IF;
        IF NEW.now_time < OLD.now_time OR NEW.revision < OLD.revision THEN
            RAISE EXCEPTION 'a test clock never goes back';
        END IF;
        IF OLD.end_time IS NOT NULL AND (
            NEW.end_time IS DISTINCT FROM OLD.end_time OR NEW.now_time <> OLD.now_time
            OR NEW.target_time <> OLD.target_time
        ) THEN
            RAISE EXCEPTION 'a test clock that has ended stands still';
        END IF;
        RETURN NEW;
    END
    $$
    """,
    "CREATE TRIGGER keep_test_clock BEFORE UPDATE ON test_clocks "
    "FOR EACH ROW EXECUTE FUNCTION keep_test_clock()",
    "CREATE TRIGGER keep_test_clock_for_ever BEFORE DELETE ON test_clocks "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON test_clocks "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    "ALTER TABLE subscriptions ADD COLUMN clock_id text",
    """
    ALTER TABLE subscriptions ADD CONSTRAINT fk_subscriptions_test_clocks
        FOREIGN KEY (organization_id, mode, clock_id)
        REFERENCES test_clocks (organization_id, mode, id)
    """,
    "CREATE INDEX ix_subscriptions_clock_id ON subscriptions (clock_id, organization_id, mode) "
    "WHERE clock_id IS NOT NULL",
    # The running clock that covers it; without one the last that did, whose time it has reached.
    """
    CREATE FUNCTION set_clock_of_subscription() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM lock_test_clocks(NEW.organization_id, true);
        SELECT c.id INTO NEW.clock_id FROM test_clocks c
        WHERE (c.organization_id, c.mode) = (NEW.organization_id, NEW.mode)
            AND (c.customer_id IS NULL OR c.customer_id = NEW.customer_id)
        ORDER BY (c.end_time IS NULL) DESC, c.now_time DESC LIMIT 1;
        RETURN NEW;
    END
    $$
    """,
    "CREATE TRIGGER set_clock_of_subscription BEFORE INSERT ON subscriptions "
    "FOR EACH ROW WHEN (NEW.mode = 'test') EXECUTE FUNCTION set_clock_of_subscription()",
)


def upgrade() -> None:
    """Make the table, and subscriptions refer to it."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("DROP TRIGGER set_clock_of_subscription ON subscriptions")
    op.execute("ALTER TABLE subscriptions DROP COLUMN clock_id")
    op.execute("DROP TABLE test_clocks")
    for function in (
        "set_clock_of_subscription()",
        "keep_test_clock()",
        "begin_test_clock()",
        "lock_test_clocks(text, boolean)",
    ):
        op.execute(f"DROP FUNCTION {function}")
