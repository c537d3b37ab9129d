"""Cases of the routes that become RPCs of accounts."""

from usageflow.accounts.v1 import accounts_pb2 as accounts
from usageflow.common.v1 import common_pb2

from tests.integration.gateway.route_cases import Case, at, page

ORGANIZATION = accounts.Organization(
    id="org_1",
    name="Acme",
    create_time=at(1),
    settings=accounts.OrganizationSettings(
        event_past_days=400,
        event_retention_days=500,
        strict_metrics=True,
        requests_per_second=1_000,
        events_per_second=2_000,
    ),
)
ORGANIZATION_JSON = {
    "id": "org_1",
    "name": "Acme",
    "settings": {
        "eventPastDays": 400,
        "eventRetentionDays": 500,
        "strictMetrics": True,
        "requestsPerSecond": 1_000,
        "eventsPerSecond": 2_000,
    },
    "createdAt": "2026-01-01T00:00:00Z",
}

API_KEY = accounts.ApiKey(
    id="key_1",
    name="n",
    prefix="uf_test_abcd",
    mode=common_pb2.MODE_TEST,
    scopes=[accounts.SCOPE_TRACK],
    create_time=at(1),
)
API_KEY_JSON = {
    "id": "key_1",
    "name": "n",
    "prefix": "uf_test_abcd",
    "mode": "test",
    "scopes": ["track"],
    "createdAt": "2026-01-01T00:00:00Z",
    "expiresAt": None,
    "revokedAt": None,
    "usedAt": None,
    "successorId": None,
    "allowedNetworks": [],
    "requestsPerSecond": None,
    "eventsPerSecond": None,
}
LIMITED_KEY = accounts.ApiKey()
LIMITED_KEY.CopyFrom(API_KEY)
LIMITED_KEY.allowed_networks.append("203.0.113.0/24")
LIMITED_KEY.requests_per_second = 10
LIMITED_KEY_JSON = API_KEY_JSON | {"allowedNetworks": ["203.0.113.0/24"], "requestsPerSecond": 10}
ROTATED_KEY = accounts.ApiKey()
ROTATED_KEY.CopyFrom(API_KEY)
ROTATED_KEY.use_time.CopyFrom(at(2))
ROTATED_KEY.successor_id = "key_2"

CASES = [
    Case(
        "GET",
        "/api/organization",
        "GetOrganization",
        accounts.GetOrganizationRequest(),
        accounts.GetOrganizationResponse(
            organization=ORGANIZATION,
        ),
        ORGANIZATION_JSON,
    ),
    Case(
        "PATCH",
        "/api/organization",
        "UpdateOrganization",
        accounts.UpdateOrganizationRequest(name="Acme", event_past_days=400, strict_metrics=False),
        accounts.UpdateOrganizationResponse(organization=ORGANIZATION),
        ORGANIZATION_JSON,
        {"name": "Acme", "settings": {"eventPastDays": 400, "strictMetrics": False}},
    ),
    Case(
        "PATCH",
        "/api/organization",
        "UpdateOrganization",
        accounts.UpdateOrganizationRequest(
            event_retention_days=90, requests_per_second=10, events_per_second=20
        ),
        accounts.UpdateOrganizationResponse(organization=ORGANIZATION),
        ORGANIZATION_JSON,
        {
            "settings": {
                "eventRetentionDays": 90,
                "requestsPerSecond": 10,
                "eventsPerSecond": 20,
            }
        },
    ),
    Case(
        "POST",
        "/api/keys",
        "CreateApiKey",
        accounts.CreateApiKeyRequest(
            name="n", scopes=[accounts.SCOPE_TRACK, accounts.SCOPE_READ], expire_time=at(31)
        ),
        accounts.CreateApiKeyResponse(api_key=API_KEY, secret="uf_test_secret"),
        API_KEY_JSON | {"secret": "uf_test_secret"},
        {"name": "n", "scopes": ["track", "read"], "expiresAt": "2026-01-31T00:00:00Z"},
        201,
    ),
    Case(
        "GET",
        "/api/keys",
        "ListApiKeys",
        accounts.ListApiKeysRequest(page_size=20),
        accounts.ListApiKeysResponse(api_keys=[API_KEY], next_page_token="next"),
        page(API_KEY_JSON),
    ),
    Case(
        "GET",
        "/api/keys?limit=1",
        "ListApiKeys",
        accounts.ListApiKeysRequest(page_size=1),
        accounts.ListApiKeysResponse(api_keys=[ROTATED_KEY], next_page_token="next"),
        page(API_KEY_JSON | {"usedAt": "2026-01-02T00:00:00Z", "successorId": "key_2"}),
    ),
    Case(
        "POST",
        "/api/keys",
        "CreateApiKey",
        accounts.CreateApiKeyRequest(
            scopes=[accounts.SCOPE_TRACK],
            allowed_networks=["203.0.113.0/24"],
            requests_per_second=10,
        ),
        accounts.CreateApiKeyResponse(api_key=LIMITED_KEY, secret="uf_test_secret"),
        LIMITED_KEY_JSON | {"secret": "uf_test_secret"},
        {"scopes": ["track"], "allowedNetworks": ["203.0.113.0/24"], "requestsPerSecond": 10},
        201,
    ),
    Case(
        "PATCH",
        "/api/keys/key_1",
        "UpdateApiKey",
        accounts.UpdateApiKeyRequest(
            key_id="key_1",
            name="n",
            allowed_networks=accounts.AllowedNetworks(networks=["203.0.113.0/24"]),
            requests_per_second=10,
            events_per_second=0,
        ),
        accounts.UpdateApiKeyResponse(api_key=LIMITED_KEY),
        LIMITED_KEY_JSON,
        {
            "name": "n",
            "allowedNetworks": ["203.0.113.0/24"],
            "requestsPerSecond": 10,
            "eventsPerSecond": None,
        },
    ),
    Case(
        "GET",
        "/api/keys/key_1",
        "GetApiKey",
        accounts.GetApiKeyRequest(key_id="key_1"),
        accounts.GetApiKeyResponse(api_key=LIMITED_KEY),
        LIMITED_KEY_JSON,
    ),
    Case(
        "PATCH",
        "/api/keys/key_1",
        "UpdateApiKey",
        accounts.UpdateApiKeyRequest(key_id="key_1", allowed_networks=accounts.AllowedNetworks()),
        accounts.UpdateApiKeyResponse(api_key=API_KEY),
        API_KEY_JSON,
        {"allowedNetworks": []},
    ),
    Case(
        "POST",
        "/api/keys/key_0/rotate",
        "RotateApiKey",
        accounts.RotateApiKeyRequest(key_id="key_0", overlap_seconds=60),
        accounts.RotateApiKeyResponse(
            api_key=API_KEY, secret="uf_test_secret", old_api_key=ROTATED_KEY
        ),
        API_KEY_JSON | {"secret": "uf_test_secret"},
        {"overlapSeconds": 60},
        201,
    ),
    Case(
        "GET",
        "/api/audit?action=webhook.*&targetId=whe_1&keyId=key_1&from=2026-01-01T00:00:00Z"
        "&to=2026-01-31T00:00:00Z&limit=1&cursor=c",
        "ListAuditEvents",
        accounts.ListAuditEventsRequest(
            action="webhook.*",
            target_id="whe_1",
            key_id="key_1",
            from_time=at(1),
            to_time=at(31),
            page_size=1,
            page_token="c",
        ),
        accounts.ListAuditEventsResponse(
            events=[
                accounts.AuditEvent(
                    id="aud_1",
                    action="webhook.disabled",
                    target_id="whe_1",
                    time=at(1),
                    details_json='{"reason":"GONE"}',
                    number=7,
                    previous_hash="0a" * 32,
                    hash="0b" * 32,
                )
            ],
            next_page_token="next",
        ),
        page(
            {
                "id": "aud_1",
                "action": "webhook.disabled",
                "targetId": "whe_1",
                "keyId": None,
                "memberId": None,
                "requestId": None,
                "createdAt": "2026-01-01T00:00:00Z",
                "details": {"reason": "GONE"},
                "number": 7,
                "previousHash": "0a" * 32,
                "hash": "0b" * 32,
            }
        ),
    ),
    Case(
        "GET",
        "/api/audit?memberId=mem_1",
        "ListAuditEvents",
        accounts.ListAuditEventsRequest(key_id="mem_1", page_size=20),
        accounts.ListAuditEventsResponse(
            events=[
                accounts.AuditEvent(
                    id="aud_1", action="plan.created", key_id="mem_1", time=at(1), number=1
                )
            ]
        ),
        {
            "data": [
                {
                    "id": "aud_1",
                    "action": "plan.created",
                    "targetId": None,
                    "keyId": None,
                    "memberId": "mem_1",
                    "requestId": None,
                    "createdAt": "2026-01-01T00:00:00Z",
                    "details": {},
                    "number": 1,
                    "previousHash": "",
                    "hash": "",
                }
            ],
            "nextCursor": None,
        },
    ),
    Case(
        "GET",
        "/api/audit/verification?after=7",
        "VerifyAuditLog",
        accounts.VerifyAuditLogRequest(after_number=7),
        accounts.VerifyAuditLogResponse(number=9, head_number=9, hash="0c" * 32),
        {"number": 9, "headNumber": 9, "hash": "0c" * 32, "brokenNumber": None},
    ),
    Case(
        "POST",
        "/api/keys/key_1/revoke",
        "RevokeApiKey",
        accounts.RevokeApiKeyRequest(key_id="key_1"),
        accounts.RevokeApiKeyResponse(api_key=API_KEY),
        API_KEY_JSON,
    ),
    Case(
        "DELETE",
        "/api/keys/key_1",
        "RevokeApiKey",
        accounts.RevokeApiKeyRequest(key_id="key_1"),
        accounts.RevokeApiKeyResponse(api_key=API_KEY),
        None,
        status=204,
    ),
]
