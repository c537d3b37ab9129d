"""What the menu leads to."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Entry:
    """A page of the menu; `icon` is the name of a symbol in static/icons.svg."""

    title: str
    path: str
    icon: str


@dataclass(frozen=True, slots=True)
class Section:
    """Pages that belong together."""

    title: str
    entries: tuple[Entry, ...]


SECTIONS: Final = (
    Section(
        "",
        (
            Entry("Overview", "/dashboard", "home"),
            Entry("Usage", "/dashboard/usage", "chart"),
            Entry("Events", "/dashboard/events", "list"),
            Entry("Metrics", "/dashboard/metrics", "gauge"),
        ),
    ),
    Section(
        "Billing",
        (
            Entry("Customers", "/dashboard/customers", "people"),
            Entry("Plans", "/dashboard/plans", "tag"),
            Entry("Subscriptions", "/dashboard/subscriptions", "repeat"),
            Entry("Invoices", "/dashboard/invoices", "document"),
            Entry("Charges", "/dashboard/charges", "coin"),
            Entry("Taxes", "/dashboard/taxes", "percent"),
        ),
    ),
    Section(
        "Developers",
        (
            Entry("Webhooks", "/dashboard/webhooks", "send"),
            Entry("API keys", "/dashboard/keys", "key"),
            Entry("Test clocks", "/dashboard/test-clocks", "clock"),
        ),
    ),
    Section(
        "Organization",
        (
            Entry("Team", "/dashboard/team", "team"),
            Entry("Audit log", "/dashboard/audit", "shield"),
            Entry("Settings", "/dashboard/settings", "gear"),
        ),
    ),
)
