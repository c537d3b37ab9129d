"""What went is noted, by the database itself, in the transaction in which it goes: so a list of the
events behind an invoice can tell whether some are missing.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

# A row of 12 KB. With more pieces than that, the older half becomes one.
PIECES_MAX = 500

EVENT_DROPS = """
CREATE TABLE event_drops (
    organization_id uuid NOT NULL,
    mode smallint NOT NULL,
    event_times tstzmultirange NOT NULL,
    CONSTRAINT pk_event_drops PRIMARY KEY (organization_id, mode),
    CONSTRAINT ck_event_drops_mode CHECK (mode IN (1, 2)),
    CONSTRAINT ck_event_drops_event_times CHECK (NOT isempty(event_times))
)
"""

# Whole quarters of an hour, which is how periods of usage are cut: so pieces side by side are one.
NOTE_EVENT_DROP = """
CREATE FUNCTION note_event_drop(
    organization uuid, mode_number smallint, oldest timestamptz, newest timestamptz
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO event_drops AS known (organization_id, mode, event_times)
    VALUES (organization, mode_number, tstzmultirange(tstzrange(
        date_bin('15 minutes', oldest, 'epoch'),
        date_bin('15 minutes', newest, 'epoch') + interval '15 minutes'
    )))
    ON CONFLICT (organization_id, mode) DO UPDATE SET event_times = (
        SELECT CASE WHEN count(*) <= {pieces_max} THEN range_agg(piece)
            ELSE range_agg(piece) + tstzmultirange(tstzrange(
                (array_agg(lower(piece) ORDER BY piece))[1],
                (array_agg(lower(piece) ORDER BY piece DESC))[{pieces_max} / 2]
            )) END
        FROM unnest(known.event_times + excluded.event_times) AS piece
    ) WHERE NOT known.event_times @> excluded.event_times
$$
"""

NOTE_DELETED_EVENTS = """
CREATE FUNCTION note_deleted_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_event_drop(organization_id, mode, min(event_time), max(event_time))
    FROM deleted GROUP BY organization_id, mode;
    RETURN NULL;
END
$$
"""
WATCH_SEGMENT = """
CREATE FUNCTION note_deleted_events_of(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER note_deleted_events AFTER DELETE ON events_%s '
        'REFERENCING OLD TABLE AS deleted '
        'FOR EACH STATEMENT EXECUTE FUNCTION note_deleted_events()', n);
END
$$
"""

# Some steps down the index of times for each organization and mode, however many events it has.
NOTE_DROPPED_SEGMENT = """
CREATE FUNCTION note_dropped_segment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('
        WITH RECURSIVE tenants AS (
            (SELECT organization_id, mode FROM events_%1$s ORDER BY organization_id, mode LIMIT 1)
            UNION ALL
            SELECT next.* FROM tenants, LATERAL (
                SELECT e.organization_id, e.mode FROM events_%1$s AS e
                WHERE (e.organization_id, e.mode) > (tenants.organization_id, tenants.mode)
                ORDER BY e.organization_id, e.mode LIMIT 1
            ) AS next
        )
        SELECT note_event_drop(organization_id, mode, oldest, newest) FROM tenants, LATERAL (
            SELECT min(event_time) AS oldest, max(event_time) AS newest FROM events_%1$s AS e
            WHERE e.organization_id = tenants.organization_id AND e.mode = tenants.mode
        ) AS times', OLD.segment);
    RETURN OLD;
END
$$
"""

KEEP_EVENT_DROPS = """
CREATE FUNCTION keep_event_drops() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF (NEW.organization_id, NEW.mode) = (OLD.organization_id, OLD.mode)
            AND NEW.event_times @> OLD.event_times
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'that events were dropped is never forgotten';
END
$$
"""

# As before, but for the trigger that notes deletions: closed segments only have any.
ROTATE_SEGMENTS = """
CREATE OR REPLACE FUNCTION rotate_event_segments(n integer, at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM event_segments WHERE segment = n AND close_time IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM make_event_segment(n + 1);
    EXECUTE format('LOCK TABLE events_%s IN SHARE ROW EXCLUSIVE MODE', n);
    EXECUTE format('CREATE TRIGGER refuse_event BEFORE INSERT ON events_%s '
        'FOR EACH STATEMENT EXECUTE FUNCTION refuse_event()', n);{watch}
    EXECUTE format('ALTER TABLE events_%s RESET (autovacuum_enabled)', n);
    UPDATE event_segments SET close_time = at WHERE segment = n;
    INSERT INTO event_segments (segment, open_time) VALUES (n + 1, at);
    RETURN true;
END
$$
"""
WATCH = "\n    PERFORM note_deleted_events_of(n);"

# What went before this is not known: of whom any that was accepted 90 days ago, the least that
# organizations may keep. It happened 5 minutes after its acceptance at the latest; in test mode,
# where clocks may be ahead, at any time. The zero organization stands for all.
NOTE_WHAT_WENT_BEFORE = """
INSERT INTO event_drops (organization_id, mode, event_times)
SELECT '00000000-0000-0000-0000-000000000000', mode, tstzmultirange(
    tstzrange(NULL, CASE WHEN mode = 1 THEN closed + interval '5 minutes' END, '[]')
)
FROM unnest(ARRAY[1, 2]::smallint[]) AS mode, (
    SELECT greatest(
        max(close_time) FILTER (WHERE close_time < clock - interval '90 days'),
        CASE WHEN min(segment) > 1 THEN min(open_time) END
    ) AS closed
    FROM event_segments, (
        SELECT greatest(now(), max(open_time)) AS clock FROM event_segments
    ) AS newest
) AS old
WHERE closed IS NOT NULL
"""


def upgrade() -> None:
    """Make the table, and the triggers that fill it."""
    # Until this is committed nothing is closed or dropped without it.
    op.execute("LOCK TABLE event_segments IN EXCLUSIVE MODE")
    for statement in (
        EVENT_DROPS,
        NOTE_EVENT_DROP.format(pieces_max=PIECES_MAX),
        NOTE_DELETED_EVENTS,
        WATCH_SEGMENT,
        NOTE_DROPPED_SEGMENT,
        ROTATE_SEGMENTS.format(watch=WATCH),
        "SELECT note_deleted_events_of(segment) FROM event_segments "
        "WHERE close_time IS NOT NULL ORDER BY segment",
        "CREATE TRIGGER note_dropped_segment BEFORE DELETE ON event_segments "
        "FOR EACH ROW EXECUTE FUNCTION note_dropped_segment()",
        NOTE_WHAT_WENT_BEFORE,
        KEEP_EVENT_DROPS,
        "CREATE TRIGGER keep_event_drops BEFORE UPDATE OR DELETE ON event_drops "
        "FOR EACH ROW EXECUTE FUNCTION keep_event_drops()",
        "CREATE TRIGGER keep_all_event_drops BEFORE TRUNCATE ON event_drops "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_event_drops()",
    ):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade: what went is forgotten."""
    op.execute("DROP TABLE event_drops")
    op.execute("DROP FUNCTION keep_event_drops()")
    op.execute("DROP FUNCTION note_dropped_segment() CASCADE")
    op.execute(ROTATE_SEGMENTS.format(watch=""))
    op.execute("DROP FUNCTION note_deleted_events_of(integer)")
    op.execute("DROP FUNCTION note_deleted_events() CASCADE")
    op.execute("DROP FUNCTION note_event_drop(uuid, smallint, timestamptz, timestamptz)")
