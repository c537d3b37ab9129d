"""Customers, plans, subscriptions, invoices, outbox and inbox.

Organization and mode are part of every key, so that no row can refer to another tenant's. What
makes rows unchangeable stands in 0002.

Only the primary keys begin with organization and mode. An index besides them that did would be
taken for a look-up by id whenever PostgreSQL's statistics are older than a burst of rows, and read
all of a tenant's (2,000 invoices: 3.0 ms each in place of 0.5). The others begin with what they
look for.
"""

from alembic import op

revision = "0001"
down_revision = None

# ISO 4217 (list one, 2026) by digits after the point.
CURRENCIES = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD
    CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS
    GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD
    LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB
    PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP
    SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW
    ZWG
    """,
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

TABLES = (
    """
    CREATE TABLE currencies (
        code text NOT NULL,
        minor_digits smallint NOT NULL,
        CONSTRAINT pk_currencies PRIMARY KEY (code)
    )
    """,
    """
    CREATE TABLE customers (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        name text NOT NULL,
        email text NOT NULL,
        time_zone text NOT NULL,
        currency text,
        metadata_json text NOT NULL,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_customers PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT fk_customers_currencies FOREIGN KEY (currency) REFERENCES currencies,
        CONSTRAINT ck_customers_organization_id CHECK (organization_id ~ '^org_[0-9a-f]{32}$'),
        CONSTRAINT ck_customers_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_customers_id CHECK (char_length(id) BETWEEN 1 AND 255)
    )
    """,
    """
    CREATE INDEX ix_customers_create_time
    ON customers (((organization_id || '/'::text) || mode), create_time, id)
    """,
    """
    CREATE TABLE plans (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        newest_version integer NOT NULL,
        CONSTRAINT pk_plans PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT ck_plans_organization_id CHECK (organization_id ~ '^org_[0-9a-f]{32}$'),
        CONSTRAINT ck_plans_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_plans_newest_version CHECK (newest_version >= 1)
    )
    """,
    """
    CREATE TABLE plan_versions (
        organization_id text NOT NULL,
        mode text NOT NULL,
        plan_id text NOT NULL,
        version integer NOT NULL,
        name text NOT NULL,
        currency text NOT NULL,
        base_price numeric NOT NULL,
        billing_period text NOT NULL,
        metrics_count integer NOT NULL,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_plan_versions PRIMARY KEY (organization_id, mode, plan_id, version),
        CONSTRAINT fk_plan_versions_plans FOREIGN KEY (organization_id, mode, plan_id)
            REFERENCES plans,
        CONSTRAINT fk_plan_versions_currencies FOREIGN KEY (currency) REFERENCES currencies,
        CONSTRAINT ck_plan_versions_version CHECK (version >= 1),
        CONSTRAINT ck_plan_versions_base_price CHECK (base_price >= 0),
        CONSTRAINT ck_plan_versions_billing_period CHECK (billing_period IN ('MONTHLY')),
        CONSTRAINT ck_plan_versions_metrics_count CHECK (metrics_count >= 0)
    )
    """,
    """
    CREATE TABLE plan_prices (
        organization_id text NOT NULL,
        mode text NOT NULL,
        plan_id text NOT NULL,
        version integer NOT NULL,
        position integer NOT NULL,
        metric text NOT NULL,
        included_units numeric NOT NULL,
        model text NOT NULL,
        parameters json NOT NULL,
        CONSTRAINT pk_plan_prices PRIMARY KEY (organization_id, mode, plan_id, version, position),
        CONSTRAINT uq_plan_prices_metric UNIQUE (organization_id, mode, plan_id, version, metric),
        CONSTRAINT fk_plan_prices_plan_versions
            FOREIGN KEY (organization_id, mode, plan_id, version) REFERENCES plan_versions,
        CONSTRAINT ck_plan_prices_position CHECK (position >= 1),
        CONSTRAINT ck_plan_prices_included_units CHECK (included_units >= 0)
    )
    """,
    """
    CREATE TABLE subscriptions (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        customer_id text NOT NULL,
        plan_id text NOT NULL,
        plan_version integer NOT NULL,
        status text NOT NULL,
        billing_anchor text NOT NULL,
        billing_period text NOT NULL,
        time_zone text NOT NULL,
        start_time timestamptz NOT NULL,
        period_start timestamptz,
        period_end timestamptz,
        cancel_time timestamptz,
        attempt_time timestamptz NOT NULL DEFAULT '-infinity',
        revision bigint NOT NULL DEFAULT 1,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_subscriptions PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT fk_subscriptions_customers FOREIGN KEY (organization_id, mode, customer_id)
            REFERENCES customers,
        CONSTRAINT fk_subscriptions_plan_versions
            FOREIGN KEY (organization_id, mode, plan_id, plan_version) REFERENCES plan_versions,
        CONSTRAINT ck_subscriptions_status
            CHECK (status IN ('ACTIVE', 'SUSPENDED', 'CANCELLED')),
        CONSTRAINT ck_subscriptions_cancel_time
            CHECK ((status = 'CANCELLED') = (cancel_time IS NOT NULL)),
        CONSTRAINT ck_subscriptions_billing_anchor
            CHECK (billing_anchor IN ('CALENDAR', 'ANNIVERSARY')),
        CONSTRAINT ck_subscriptions_billing_period CHECK (billing_period IN ('MONTHLY')),
        CONSTRAINT ck_subscriptions_period CHECK (
            (period_start IS NULL) = (period_end IS NULL)
            AND start_time <= period_start AND period_start < period_end
        ),
        CONSTRAINT ck_subscriptions_goes_on
            CHECK (period_start IS NOT NULL OR status = 'CANCELLED'),
        CONSTRAINT ck_subscriptions_quarter_hours CHECK (
            start_time = date_bin('15 minutes', start_time, 'epoch')
            AND period_start = date_bin('15 minutes', period_start, 'epoch')
            AND period_end = date_bin('15 minutes', period_end, 'epoch')
        )
    )
    """,
    """
    CREATE INDEX ix_subscriptions_customer_id
    ON subscriptions (customer_id, organization_id, mode, id)
    """,
    # What the scheduler looks through; a lease changes no indexed column.
    """
    CREATE INDEX ix_subscriptions_period_end ON subscriptions (period_end)
    WHERE period_end IS NOT NULL
    """,
    """
    CREATE TABLE invoice_counters (
        organization_id text NOT NULL,
        mode text NOT NULL,
        series text NOT NULL,
        newest_sequence bigint NOT NULL,
        CONSTRAINT pk_invoice_counters PRIMARY KEY (organization_id, mode, series)
    )
    """,
    """
    CREATE TABLE invoices (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        customer_id text NOT NULL,
        subscription_id text NOT NULL,
        plan_id text NOT NULL,
        plan_version integer NOT NULL,
        period_start timestamptz NOT NULL,
        period_end timestamptz NOT NULL,
        currency text NOT NULL,
        amount numeric NOT NULL,
        status text NOT NULL DEFAULT 'DRAFT',
        series text NOT NULL DEFAULT 'INV',
        sequence bigint,
        number text,
        failed_payments integer NOT NULL DEFAULT 0,
        create_time timestamptz NOT NULL,
        finalize_time timestamptz,
        paid_time timestamptz,
        void_time timestamptz,
        CONSTRAINT pk_invoices PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT uq_invoices_period
            UNIQUE (subscription_id, organization_id, mode, period_start),
        CONSTRAINT uq_invoices_sequence UNIQUE (series, organization_id, mode, sequence),
        CONSTRAINT fk_invoices_subscriptions
            FOREIGN KEY (organization_id, mode, subscription_id) REFERENCES subscriptions,
        CONSTRAINT fk_invoices_customers
            FOREIGN KEY (organization_id, mode, customer_id) REFERENCES customers,
        CONSTRAINT fk_invoices_plan_versions
            FOREIGN KEY (organization_id, mode, plan_id, plan_version) REFERENCES plan_versions,
        CONSTRAINT fk_invoices_currencies FOREIGN KEY (currency) REFERENCES currencies,
        CONSTRAINT ck_invoices_period CHECK (period_start < period_end),
        CONSTRAINT ck_invoices_status
            CHECK (status IN ('DRAFT', 'PENDING', 'PAID', 'FAILED', 'VOID')),
        CONSTRAINT ck_invoices_final CHECK (
            (status = 'DRAFT') = (sequence IS NULL)
            AND (status = 'DRAFT') = (number IS NULL)
            AND (status = 'DRAFT') = (finalize_time IS NULL)
        ),
        CONSTRAINT ck_invoices_number
            CHECK (number = series || '-' || CASE WHEN sequence < 1000000
                THEN lpad(sequence::text, 6, '0') ELSE sequence::text END),
        CONSTRAINT ck_invoices_paid_time CHECK ((status = 'PAID') = (paid_time IS NOT NULL)),
        CONSTRAINT ck_invoices_void_time CHECK ((status = 'VOID') = (void_time IS NOT NULL)),
        CONSTRAINT ck_invoices_failed_payments
            CHECK (failed_payments >= 0 AND (status <> 'FAILED' OR failed_payments > 0))
    )
    """,
    """
    CREATE INDEX ix_invoices_customer_id ON invoices (customer_id, organization_id, mode, id)
    """,
    """
    CREATE TABLE invoice_lines (
        organization_id text NOT NULL,
        mode text NOT NULL,
        invoice_id text NOT NULL,
        position integer NOT NULL,
        kind text NOT NULL,
        metric text,
        description text NOT NULL,
        quantity numeric NOT NULL,
        included_units numeric NOT NULL,
        unit_price numeric,
        amount numeric NOT NULL,
        period_start timestamptz NOT NULL,
        period_end timestamptz NOT NULL,
        steps json NOT NULL,
        CONSTRAINT pk_invoice_lines PRIMARY KEY (organization_id, mode, invoice_id, position),
        CONSTRAINT fk_invoice_lines_invoices
            FOREIGN KEY (organization_id, mode, invoice_id) REFERENCES invoices,
        CONSTRAINT ck_invoice_lines_kind CHECK (kind IN ('BASE', 'USAGE', 'LATE_USAGE')),
        CONSTRAINT ck_invoice_lines_metric CHECK ((kind = 'BASE') = (metric IS NULL)),
        CONSTRAINT ck_invoice_lines_period CHECK (period_start < period_end)
    )
    """,
    """
    CREATE TABLE outbox (
        message_id text NOT NULL,
        subject text NOT NULL,
        payload bytea NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_outbox PRIMARY KEY (message_id)
    )
    """,
    """
    CREATE TABLE inbox (
        message_id text NOT NULL,
        receive_time timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_inbox PRIMARY KEY (message_id)
    )
    """,
)


def upgrade() -> None:
    """Make the tables and fill in the currencies."""
    for statement in TABLES:
        op.execute(statement)
    rows = ", ".join(
        f"('{code}', {digits})" for digits, codes in CURRENCIES.items() for code in codes.split()
    )
    op.execute(f"INSERT INTO currencies (code, minor_digits) VALUES {rows}")  # noqa: S608


def downgrade() -> None:
    """Undo upgrade."""
    op.execute(
        "DROP TABLE inbox, outbox, invoice_lines, invoices, invoice_counters, subscriptions, "
        "plan_prices, plan_versions, plans, customers, currencies"
    )
