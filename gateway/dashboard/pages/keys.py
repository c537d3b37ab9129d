"""/dashboard/keys"""

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.accounts.v1 import accounts_pb2

from gateway.dashboard.forms import local_time
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import accounts
from gateway.shapes.accounts import NewApiKey, Rotation
from gateway.strict_json import Json
from services.kit.errors import DomainError
from services.kit.pages import PAGE_SIZE_MAX

SCOPES = (
    ("track", "Send events"),
    ("read", "Read everything"),
    ("admin", "Change everything"),
)
OVERLAPS = (
    ("86400", "A day"),
    ("3600", "An hour"),
    ("604800", "A week"),
    ("2592000", "30 days"),
    ("0", "Not at all: it ends now"),
)


@get("/dashboard/keys", include_in_schema=False)
async def list_keys(visit: Visited) -> Response[bytes]:
    """The keys of the mode that is looked at."""
    return await _list(visit)


@post("/dashboard/keys", include_in_schema=False)
async def create_key(visit: Visited) -> Response[bytes]:
    """Make a key, which is shown only on the page that answers."""
    try:
        more: dict[str, Json] = {"scopes": [*visit.form.all("scopes")]}
        if visit.form.get("expiresAt"):
            at = local_time(visit.form["expiresAt"], "expiresAt", visit.zone)
            more["expiresAt"] = at.isoformat()
        new = visit.form.read(NewApiKey, **more)
        request = accounts.to_proto(new)
        answer = await visit.calls.call(visit.calls.accounts.CreateApiKey, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _list(visit, 400)
    return visit.page("key_made.html", made=accounts.with_secret(answer), old=None)


@post("/dashboard/keys/{key_id:str}/rotate", include_in_schema=False)
async def rotate_key(visit: Visited, key_id: FromPath[str]) -> Response[bytes]:
    """Make a key like it, which is shown only on the page that answers; both work for a while."""
    try:
        overlap_s = visit.form.read(Rotation).overlap_seconds
        request = accounts_pb2.RotateApiKeyRequest(key_id=key_id, overlap_seconds=overlap_s)
        answer = await visit.calls.call(visit.calls.accounts.RotateApiKey, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _list(visit, 400)
    old = accounts.from_proto(answer.old_api_key)
    return visit.page("key_made.html", made=accounts.with_secret(answer), old=old)


@post("/dashboard/keys/{key_id:str}/revoke", include_in_schema=False)
async def revoke_key(visit: Visited, key_id: FromPath[str]) -> Response[bytes]:
    """End a key for good."""
    request = accounts_pb2.RevokeApiKeyRequest(key_id=key_id)
    await visit.calls.call(visit.calls.accounts.RevokeApiKey, request)
    return visit.go("/dashboard/keys", "revoked")


async def _list(visit: Visit, status: int = 200) -> Response[bytes]:
    request = accounts_pb2.ListApiKeysRequest(
        page_size=PAGE_SIZE_MAX, page_token=visit.request.query_params.get("cursor", "")
    )
    answer = await visit.calls.call(visit.calls.accounts.ListApiKeys, request)
    return visit.page(
        "keys.html",
        status,
        keys=[accounts.from_proto(each) for each in answer.api_keys],
        cursor=answer.next_page_token,
        scopes=SCOPES,
        ticked=visit.form.all("scopes") or ["track"],
        overlaps=OVERLAPS,
    )


HANDLERS = [list_keys, create_key, rotate_key, revoke_key]
