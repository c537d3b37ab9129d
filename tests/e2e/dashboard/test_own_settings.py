"""What a member sees to alone: their API keys, name and password."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from cli.connection import Connection
from tests.e2e.api import Api
from tests.e2e.dashboard.conftest import WAIT_MS, Visitor, new_organization_id, sign_in_token

PASSWORD = "correct horse battery"
expect.set_options(timeout=WAIT_MS)


def test_a_key_is_rotated_and_both_work_until_the_old_one_ends(
    owner: Visitor, stack: Connection
) -> None:
    page = owner.open("/keys")
    page.get_by_text("New key").click()
    page.get_by_label("Name").fill("Rotated")
    page.get_by_label("Expires").fill("2099-01-01T00:00")
    page.get_by_role("button", name="Create key").click()
    old = page.locator("#secret").inner_text()
    owner.open("/keys")
    row = page.get_by_role("row", name="Rotated")
    expect(row).to_contain_text("until 1 Jan 2099")
    expect(row).to_contain_text("never")
    row.locator("summary", has_text="Rotate").click()
    row.get_by_label("The old key works for").select_option("3600")
    row.get_by_role("button", name="Rotate key").click()
    expect(page.get_by_text("goes on working until")).to_be_visible()
    owner.keep("key-rotated")
    new = page.locator("#secret").inner_text()
    for key in (old, new):
        assert Api(stack.http, key).track(metric="ROTATED").status_code == 200
    owner.open("/keys")
    expect(page.get_by_role("row", name="Rotated").nth(1)).to_contain_text("rotated")


def test_who_came_by_a_link_sets_a_password_and_signs_in_with_it(
    new_visitor: Callable[[], Visitor], stack: Connection, stack_home: Path
) -> None:
    visitor, elsewhere = new_visitor(), new_visitor()
    organization_id = new_organization_id(stack, stack_home, "Password people")
    visitor.sign_in(sign_in_token(stack, stack_home, organization_id))
    page = visitor.open("/settings")
    page.get_by_role("link", name="You", exact=True).click()
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("Email").fill("ada.password@example.com")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.get_by_label("New password").fill("short")
    page.get_by_role("button", name="Set password").click()
    expect(page.get_by_label("New password")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_role("button", name="Set password").click()
    expect(page.get_by_text("The password was set")).to_be_visible()
    expect(page.get_by_label("Present password")).to_be_visible()
    visitor.keep("account")

    other = elsewhere.page
    other.goto(f"{stack.http}/sign-in")
    other.get_by_label("Email").fill("ada.password@example.com")
    other.get_by_label("Password").fill(PASSWORD)
    other.get_by_role("button", name="Sign in").click()
    other.wait_for_url("**/dashboard")
    expect(other.get_by_text("Ada", exact=True)).to_be_visible()
    assert visitor.faults == elsewhere.faults == []
