"""/api/organization and /api/keys"""

from litestar import Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from usageflow.accounts.v1 import accounts_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.query import Asked, query
from gateway.shapes.accounts import (
    ApiKey,
    ApiKeyChange,
    ApiKeyPage,
    ApiKeyWithSecret,
    NewApiKey,
    Organization,
    OrganizationChange,
    Rotation,
    change_to_proto,
    from_proto,
    key_change_to_proto,
    organization_from_proto,
    to_proto,
    with_secret,
)
from gateway.shapes.common import PageQuery


@get("/api/organization")
async def get_organization(calls: ApiCalls) -> Response[Organization]:
    """The organization that the calling key belongs to."""
    answer = await calls.call(calls.accounts.GetOrganization, pb.GetOrganizationRequest())
    return Response(organization_from_proto(answer.organization), headers=etag(answer.organization))


@patch("/api/organization")
async def change_organization(
    calls: ApiCalls, data: JSONBody[OrganizationChange], if_match: IfMatch = None
) -> Response[Organization]:
    """Change the organization; what is left out stays. Scope: admin.

    Events are taken by a new eventPastDays at once, or within 30 s while NATS is away.
    """
    request = change_to_proto(data)
    request.if_match.extend(tags_of(if_match))
    answer = await calls.call(calls.accounts.UpdateOrganization, request)
    return Response(organization_from_proto(answer.organization), headers=etag(answer.organization))


@post("/api/keys")
async def create_key(calls: ApiCalls, data: JSONBody[NewApiKey]) -> ApiKeyWithSecret:
    """Make an API key; it is shown only in this answer."""
    answer = await calls.call(calls.accounts.CreateApiKey, to_proto(data))
    return with_secret(answer)


@get("/api/keys", dependencies=query(PageQuery))
async def list_keys(calls: ApiCalls, asked: Asked[PageQuery]) -> ApiKeyPage:
    """List the keys of the calling key's organization and mode, newest first."""
    request = pb.ListApiKeysRequest(page_size=asked.limit, page_token=asked.cursor)
    answer = await calls.call(calls.accounts.ListApiKeys, request)
    return ApiKeyPage(
        data=[from_proto(key) for key in answer.api_keys],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/keys/{key_id:str}")
async def get_key(calls: ApiCalls, key_id: FromPath[str]) -> Response[ApiKey]:
    """One key, without the key itself. That it was used does not change its ETag."""
    answer = await calls.call(calls.accounts.GetApiKey, pb.GetApiKeyRequest(key_id=key_id))
    return _shown(answer.api_key)


@patch("/api/keys/{key_id:str}")
async def change_key(
    calls: ApiCalls,
    key_id: FromPath[str],
    data: JSONBody[ApiKeyChange],
    if_match: IfMatch = None,
) -> Response[ApiKey]:
    """Change a key's name, from where it may be used and how fast; what is left out stays.

    It holds everywhere at once, or within 30 s while NATS is away.
    """
    request = key_change_to_proto(key_id, data)
    request.if_match.extend(tags_of(if_match))
    return _shown((await calls.call(calls.accounts.UpdateApiKey, request)).api_key)


@post("/api/keys/{key_id:str}/revoke", status_code=200)
async def revoke_key(calls: ApiCalls, key_id: FromPath[str]) -> ApiKey:
    """End a key for good; repeating it changes nothing."""
    request = pb.RevokeApiKeyRequest(key_id=key_id)
    return from_proto((await calls.call(calls.accounts.RevokeApiKey, request)).api_key)


@post("/api/keys/{key_id:str}/rotate")
async def rotate_key(
    calls: ApiCalls, key_id: FromPath[str], data: JSONBody[Rotation]
) -> ApiKeyWithSecret:
    """Make a key like this one, which goes on working for a while; the new one is shown only here.

    409 when the key works no more, or was rotated before.
    """
    request = pb.RotateApiKeyRequest(key_id=key_id, overlap_seconds=data.overlap_seconds)
    answer = await calls.call(calls.accounts.RotateApiKey, request)
    return with_secret(answer)


@delete("/api/keys/{key_id:str}")
async def delete_key(calls: ApiCalls, key_id: FromPath[str], if_match: IfMatch = None) -> None:
    """The same as POST .../revoke, without an answer to read."""
    request = pb.RevokeApiKeyRequest(key_id=key_id, if_match=tags_of(if_match))
    await calls.call(calls.accounts.RevokeApiKey, request)


def _shown(key: pb.ApiKey) -> Response[ApiKey]:
    return Response(from_proto(key), headers=etag(key))


HANDLERS = [
    get_organization,
    change_organization,
    create_key,
    list_keys,
    get_key,
    change_key,
    revoke_key,
    rotate_key,
    delete_key,
]
