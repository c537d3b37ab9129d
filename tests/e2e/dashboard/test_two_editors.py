"""Two members have the same form open; a logo is chosen from a file."""

import base64
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from cli.connection import Connection
from tests.e2e.dashboard.conftest import WAIT_MS, Visitor, new_organization_id, sign_in_token
from tests.e2e.test_forms_of_two import LOGO

expect.set_options(timeout=WAIT_MS)


def test_who_saves_last_sees_what_it_is_now_and_may_change_that(
    new_visitor: Callable[[], Visitor], stack: Connection, stack_home: Path
) -> None:
    ada, bob = new_visitor(), new_visitor()
    organization_id = new_organization_id(stack, stack_home, "Two editors")
    for visitor in (ada, bob):
        visitor.sign_in(sign_in_token(stack, stack_home, organization_id))
        visitor.open("/settings/invoices")
    for visitor, name in ((ada, "Ada & Co"), (bob, "Bob <b>")):
        visitor.page.get_by_label("Name").fill(name)
        visitor.page.get_by_role("button", name="Save").click()
    expect(ada.page.get_by_text("Saved.")).to_be_visible()
    expect(bob.page.get_by_role("alert")).to_contain_text("Somebody has changed this")
    expect(bob.page.get_by_role("alert")).to_contain_text("Bob <b>")
    expect(bob.page.get_by_label("Name")).to_have_value("Ada & Co")
    bob.examine("changed-meanwhile")
    bob.page.get_by_label("Name").fill("Bob <b>")
    bob.page.get_by_role("button", name="Save").click()
    expect(bob.page.get_by_text("Saved.")).to_be_visible()
    ada.open("/settings/invoices")
    expect(ada.page.get_by_label("Name")).to_have_value("Bob <b>")
    assert ada.faults == bob.faults == []


def test_a_logo_is_chosen_shown_and_removed(
    new_visitor: Callable[[], Visitor], stack: Connection, stack_home: Path
) -> None:
    visitor = new_visitor()
    organization_id = new_organization_id(stack, stack_home, "With a logo")
    visitor.sign_in(sign_in_token(stack, stack_home, organization_id))
    page = visitor.open("/settings/invoices")
    file = {"name": "logo.png", "mimeType": "image/png", "buffer": LOGO}
    page.get_by_label("Logo").set_input_files(file)  # type: ignore[arg-type]
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    shown = page.get_by_alt_text("Logo on invoices")
    expect(shown).to_have_attribute(
        "src", f"data:image/png;base64,{base64.b64encode(LOGO).decode()}"
    )
    assert shown.evaluate("image => image.naturalWidth") > 0
    visitor.examine("logo")
    page.locator("summary", has_text="Remove").click()
    page.get_by_role("button", name="Remove logo").click()
    expect(page.get_by_text("None. Invoices show the name alone.")).to_be_visible()
    assert visitor.faults == []
