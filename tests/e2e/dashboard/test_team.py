"""A team: somebody is invited, joins by the link, may do what their role is for, and goes."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from cli.connection import Connection
from tests.e2e.dashboard.conftest import WAIT_MS, Visitor, new_organization_id, sign_in_token

expect.set_options(timeout=WAIT_MS)


def test_somebody_joins_is_given_a_role_and_goes(
    new_visitor: Callable[[], Visitor], stack: Connection, stack_home: Path
) -> None:
    owner, guest = new_visitor(), new_visitor()
    organization_id = new_organization_id(stack, stack_home, "A team")
    owner.sign_in(sign_in_token(stack, stack_home, organization_id))
    page = owner.open("/team")
    page.get_by_text("Invite somebody").click()
    page.get_by_label("Email").fill("grace@example.com")
    page.get_by_role("button", name="Make invitation").click()
    link = page.locator("#secret").inner_text()

    guest.page.goto(link)
    guest.page.get_by_label("Your name").fill("Grace <i>")
    guest.page.get_by_role("button", name="Join").click()
    guest.page.wait_for_url("**/dashboard")
    assert guest.open("/metrics").get_by_role("link", name="New metric").count() == 0

    owner.open("/team")
    owner.keep("team")
    row = page.get_by_role("row", name="Grace <i>")
    expect(row.get_by_text("Viewer", exact=True)).to_be_visible()
    row.get_by_text("Change role").first.click()
    row.get_by_label("Role").select_option("ADMIN")
    row.get_by_role("button", name="Change role").click()
    expect(
        page.get_by_role("row", name="Grace <i>").get_by_text("Admin", exact=True)
    ).to_be_visible()
    expect(guest.open("/metrics").get_by_role("link", name="New metric")).to_be_visible()

    page.get_by_role("row", name="Grace <i>").get_by_text("Remove", exact=True).click()
    page.get_by_role("button", name="Remove member").click()
    expect(page.get_by_text("The member was removed")).to_be_visible()
    assert "/sign-in" in guest.open("").url
    assert owner.faults == guest.faults == []


def test_the_last_owner_stays_and_is_told_why(
    new_visitor: Callable[[], Visitor], stack: Connection, stack_home: Path
) -> None:
    owner = new_visitor()
    organization_id = new_organization_id(stack, stack_home, "One alone")
    owner.sign_in(sign_in_token(stack, stack_home, organization_id))
    page = owner.open("/team")
    page.get_by_text("Remove", exact=True).click()
    page.get_by_role("button", name="Remove member").click()
    expect(page.get_by_role("alert")).to_contain_text("owner")
