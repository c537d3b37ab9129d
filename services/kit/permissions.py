"""What each RPC takes: which roles of members may call it, and whether API keys may.

An API key's scopes are looked at by the RPC itself (auth.require_scope); a member's role is looked
at here, by the interceptor, before the RPC runs. Every RPC names its permission in RULES. What only
reads is told by its name, everything else is the `writes` of its part unless it is named: what
is new is refused to those who may only read until somebody decides otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from services.kit import portal
from services.kit.auth import Principal
from services.kit.errors import PermissionDeniedError, UnexpectedError

OWNER, ADMIN, DEVELOPER, VIEWER = ROLES = ("OWNER", "ADMIN", "DEVELOPER", "VIEWER")


@dataclass(frozen=True, slots=True)
class Permission:
    """Who may: members of these roles, and API keys (whose scope the RPC looks at)."""

    name: str
    roles: frozenset[str]
    keys: bool = True


READ = Permission("read", frozenset(ROLES))
# Usage comes from programs, which have keys: a member's session never sends any.
TRACK = Permission("track", frozenset())
METRICS = Permission("metrics", frozenset({OWNER, ADMIN}))
BILLING = Permission("billing", frozenset({OWNER, ADMIN}))
ORGANIZATION = Permission("organization", frozenset({OWNER, ADMIN}))
INTEGRATIONS = Permission("integrations", frozenset({OWNER, DEVELOPER}))
# What a key must never do: whoever finds one would make themselves a member.
INVITATIONS = Permission("invitations", frozenset({OWNER, ADMIN}), keys=False)
MEMBERS = Permission("members", frozenset({OWNER}), keys=False)
OWN = Permission("own", frozenset(ROLES), keys=False)
# For links to the customer portal alone: portal.REACH says what these may call.
PORTAL = Permission("portal", frozenset(), keys=False)

# What an RPC that changes nothing begins with.
_READS = (
    *("Get", "List", "Query", "Quote", "Preview", "Check", "Watch", "Search", "Find", "Compare"),
    *("Verify", "Export", "Simulate"),
)


def only_reads(rpc: str) -> bool:
    """Whether an RPC of this name changes nothing."""
    return rpc.startswith(_READS)


@dataclass(frozen=True, slots=True)
class _Rules:
    """The permissions of one part's RPCs."""

    writes: Permission
    reads: Permission = READ
    others: Mapping[str, Permission] = field(default_factory=dict)

    def of(self, rpc: str) -> Permission:
        if rpc in self.others:
            return self.others[rpc]
        return self.reads if rpc.startswith(_READS) else self.writes


# By the package of their services: no two RPCs have one name.
RULES: Mapping[str, _Rules] = {
    "usageflow.accounts.v1": _Rules(
        writes=MEMBERS,
        others={
            "CreateApiKey": INTEGRATIONS,
            "RevokeApiKey": INTEGRATIONS,
            "RotateApiKey": INTEGRATIONS,
            "UpdateApiKey": INTEGRATIONS,
            "UpdateOrganization": ORGANIZATION,
            "GetCurrentMember": OWN,
            "ListSessions": OWN,
            "RevokeSession": OWN,
            "UpdateCurrentMember": OWN,
            "SetPassword": OWN,
            "CreateInvitation": INVITATIONS,
            "RevokeInvitation": INVITATIONS,
            "CreatePortalLink": BILLING,
            "RevokePortalLink": BILLING,
            "GetCurrentPortal": PORTAL,
        },
    ),
    "usageflow.aggregator.v1": _Rules(
        writes=METRICS,
        others={
            "SetQuota": BILLING,
            "DeleteQuota": BILLING,
            "ReserveQuota": TRACK,
            "CommitReservation": TRACK,
            "ReleaseReservation": TRACK,
        },
    ),
    "usageflow.ingest.v1": _Rules(
        writes=BILLING, others={"RecordEvents": TRACK, "StreamEvents": TRACK}
    ),
    "usageflow.invoicer.v1": _Rules(writes=BILLING),
    "usageflow.notifier.v1": _Rules(writes=INTEGRATIONS),
}


@cache
def permission_of(method: str) -> Permission | None:
    """The permission of "/package.Service/Rpc"; None: its package has no rules."""
    service, _, rpc = method.removeprefix("/").partition("/")
    rules = RULES.get(service.rpartition(".")[0])
    return None if rules is None else rules.of(rpc)


def allowed(principal: Principal, permission: Permission) -> bool:
    """Whether the caller may, as far as roles say it; a portal's link has none."""
    if principal.customer_id:
        return False
    return principal.role in permission.roles if principal.member_id else permission.keys


def require(principal: Principal, method: str) -> None:
    """PermissionDeniedError unless the caller may call "/package.Service/Rpc"."""
    if principal.customer_id:
        if method not in portal.REACH:
            raise PermissionDeniedError(
                "A link to the customer portal does not reach this", reason="portal_only"
            )
        return
    permission = permission_of(method)
    if permission is None:
        if not principal.member_id:
            return
        raise UnexpectedError(f"{method} names no permission in kit.permissions")
    if allowed(principal, permission):
        return
    if permission is PORTAL:
        raise PermissionDeniedError(
            "This is for links to the customer portal", reason="portal_links_only"
        )
    if not principal.member_id:
        raise PermissionDeniedError(
            "This is for members who have signed in, not for API keys", reason="members_only"
        )
    raise missing_role(principal, permission)


def missing_role(principal: Principal, permission: Permission) -> PermissionDeniedError:
    """The error of a member who may not."""
    may = [role for role in ROLES if role in permission.roles]
    return PermissionDeniedError(
        f"This takes {_named(may)}; your role is {principal.role}", reason="missing_role"
    )


def _named(roles: list[str]) -> str:
    if not roles:
        return "an API key"
    return f"the role {' or '.join(roles)}"
