"""Cases of /api/portal-links."""

from usageflow.accounts.v1 import portal_pb2 as pb
from usageflow.invoicer.v1 import invoicer_pb2

from tests.integration.gateway.route_cases import Case, at, page

LINK = pb.PortalLink(
    id="ptl_1",
    customer_id="user_123",
    created_by="key_1",
    create_time=at(1),
    expire_time=at(2),
)
LINK_JSON = {
    "id": "ptl_1",
    "customerId": "user_123",
    "status": "EXPIRED",
    "createdBy": "key_1",
    "createdAt": "2026-01-01T00:00:00Z",
    "expiresAt": "2026-01-02T00:00:00Z",
}
REVOKED = pb.PortalLink()
REVOKED.CopyFrom(LINK)
REVOKED.revoke_time.CopyFrom(at(1))
CASES = [
    Case(
        "POST",
        "/api/portal-links",
        "CreatePortalLink",
        pb.CreatePortalLinkRequest(customer_id="user_123", expires_in_seconds=3_600),
        pb.CreatePortalLinkResponse(portal_link=LINK, token="ufp_x"),
        LINK_JSON | {"url": "http://billing.example/portal?token=ufp_x"},
        {"customerId": "user_123", "expiresInSeconds": 3_600},
        status=201,
        others={"GetCustomer": invoicer_pb2.GetCustomerResponse()},
        member=True,
    ),
    Case(
        "GET",
        "/api/portal-links?customerId=user_123&limit=5&cursor=c",
        "ListPortalLinks",
        pb.ListPortalLinksRequest(customer_id="user_123", page_size=5, page_token="c"),
        pb.ListPortalLinksResponse(portal_links=[LINK], next_page_token="next"),
        page(LINK_JSON),
    ),
    Case(
        "DELETE",
        "/api/portal-links/ptl_1",
        "RevokePortalLink",
        pb.RevokePortalLinkRequest(portal_link_id="ptl_1"),
        pb.RevokePortalLinkResponse(portal_link=REVOKED),
        None,
        status=204,
    ),
]
