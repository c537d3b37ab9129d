"""Members in a browser: their cookie, who they are, and that a request is really theirs.

The cookie holds the session's token, which only accounts can look up, the mode that the member
looks at, and a signature of both (services/kit/signatures.py). What changes something has to come
from a page of ours: browsers say where a request comes from (Origin, Sec-Fetch-Site), and it
carries a token that only our pages know, which belongs to the session and the mode. So a form that
was opened in test mode does nothing after the member has switched to live mode in another window.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast
from urllib.parse import urlsplit

from litestar import Request
from pydantic import SecretStr
from usageflow.accounts.v1 import members_pb2 as pb
from usageflow.accounts.v1 import members_pb2_grpc

from gateway.calls import Channels, answer_of
from gateway.client import Clients
from gateway.wire import Header, Scope
from services.kit import clock
from services.kit.auth import KeyResolver, Principal
from services.kit.errors import PermissionDeniedError, UnauthenticatedError
from services.kit.grpc_client import DEADLINE_S, Metadata, caller_metadata, internal_metadata
from services.kit.permissions import Permission, allowed
from services.kit.signatures import Signatures

COOKIE: Final = "usageflow-session"
# A browser takes a cookie of this name only over https, for this host alone, for all of its paths.
SECURE_COOKIE: Final = f"__Host-{COOKIE}"
CSRF_HEADER: Final = b"x-csrf-token"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Viewer:
    """A member who has signed in, in the mode ("live" or "test") that they look at.

    `credential` is what calls to the services carry: they look it up themselves. `csrf_token` goes
    into every form of ours, or into the header x-csrf-token.
    """

    principal: Principal
    credential: str
    csrf_token: str

    @property
    def organization_id(self) -> str:
        """Whose data they see."""
        return self.principal.organization_id

    @property
    def mode(self) -> str:
        """ "live" or "test"."""
        return self.principal.mode_name

    @property
    def member_id(self) -> str:
        """ "mem_..."."""
        return self.principal.member_id

    @property
    def session_id(self) -> str:
        """ "ses_..."."""
        return self.principal.session_id

    @property
    def name(self) -> str:
        """Their name."""
        return self.principal.member_name

    @property
    def role(self) -> str:
        """OWNER, ADMIN, DEVELOPER or VIEWER."""
        return self.principal.role

    @property
    def metadata(self) -> Metadata:
        """The metadata of calls in their name, with the ids of the running request."""
        return caller_metadata(self.credential)

    def may(self, permission: Permission) -> bool:
        """Whether their role has it: what they may not do needs no button."""
        return allowed(self.principal, permission)


async def viewer(request: Request[Any, Any, Any]) -> Viewer | None:
    """Who asks for a page; None: nobody who has signed in. UnavailableError."""
    return await sessions_of(request).viewer(scope_of(request))


def sessions_of(request: Request[Any, Any, Any]) -> "Sessions":
    """The sessions of the gateway that answers this request."""
    sessions = scope_of(request)["sessions"]
    assert isinstance(sessions, Sessions)
    return sessions


def scope_of(request: Request[Any, Any, Any]) -> Scope:
    """The request's ASGI scope, to which entry.py adds."""
    return cast("Scope", request.scope)


class Sessions:
    """Begins and ends sessions, and tells whose a request is."""

    def __init__(
        self,
        keys: KeyResolver,
        channels: Channels,
        internal_token: SecretStr,
        clients: Clients,
        public_url: str = "",
    ) -> None:
        self._keys = keys
        self._members = members_pb2_grpc.MembersInternalServiceStub(channels.accounts)
        self._token = internal_token
        self._signatures = Signatures(internal_token)
        self._clients = clients
        self._public_url = public_url.rstrip("/")
        # Whether people reach us over https: cookies are for that alone then.
        self.secure = public_url.startswith("https:")
        self._cookie = SECURE_COOKIE if self.secure else COOKIE

    async def viewer(self, scope: Scope) -> Viewer | None:
        """Who asks; None: nobody who has signed in. UnavailableError."""
        credential = self._credential(dict(scope["headers"]))
        if not credential:
            return None
        try:
            return await self._look_up(credential)
        except UnauthenticatedError:
            return None

    async def member(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Viewer | None:
        """Who calls the API with a cookie; None: there is no cookie.

        UnauthenticatedError: the session has ended. PermissionDeniedError: what would change
        something does not come from a page of ours.
        """
        credential = self._credential(headers)
        if not credential:
            return None
        found = await self._look_up(credential)
        if scope["method"] not in SAFE_METHODS:
            given = headers.get(CSRF_HEADER, b"").decode("latin-1")
            self.require_own_page(headers)
            self.require_csrf_token(found, given)
        return found

    async def _look_up(self, credential: str) -> Viewer:
        principal = await self._keys.resolve(credential)
        return Viewer(principal, credential, csrf_token(credential))

    def _credential(self, headers: Mapping[bytes, bytes]) -> str:
        for part in headers.get(b"cookie", b"").decode("latin-1").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie and self._signatures.read_session(value):
                return value
        return ""

    def require_own_page(self, headers: Mapping[bytes, bytes]) -> None:
        """PermissionDeniedError when a browser says that the request comes from another site."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin:
            host = headers.get(b"host", b"").decode("latin-1")
            own = urlsplit(origin).netloc == host or origin == self._public_url
        else:
            own = headers.get(b"sec-fetch-site", b"same-origin") in (b"same-origin", b"none")
        if not own:
            raise PermissionDeniedError(
                "This request comes from another site", reason="foreign_origin"
            )

    def require_csrf_token(self, asking: Viewer, given: str) -> None:
        """PermissionDeniedError unless the token is that of the viewer's session and mode."""
        if not hmac.compare_digest(given.encode(), asking.csrf_token.encode()):
            raise PermissionDeniedError(
                "This page is out of date: reload it and try again", reason="invalid_csrf_token"
            )

    async def sign_in(
        self, scope: Scope, *, link_token: str = "", email: str = "", password: str = ""
    ) -> Header:
        """Begin a session, which looks at test mode: the header with its cookie.

        UnauthenticatedError, OverloadedError (too many attempts failed), UnavailableError.
        """
        headers = dict(scope["headers"])
        request = pb.SignInRequest(
            link_token=link_token,
            email=email,
            password=password,
            address=self._clients.address(scope, headers),
            user_agent=headers.get(b"user-agent", b"").decode("latin-1"),
        )
        answer = await answer_of(
            self._members.SignIn, request, DEADLINE_S, internal_metadata(self._token)
        )
        return self._first_cookie(answer)

    async def invitation(self, token: str) -> pb.GetInvitationResponse:
        """What an invitation's link offers. UnauthenticatedError, UnavailableError."""
        return await answer_of(
            self._members.GetInvitation,
            pb.GetInvitationRequest(token=token),
            DEADLINE_S,
            internal_metadata(self._token),
        )

    async def accept_invitation(
        self, scope: Scope, token: str, *, name: str, password: str
    ) -> Header:
        """Make somebody a member and begin their session: the header with its cookie.
        UnauthenticatedError, InvalidArgumentError, ConflictError, UnavailableError.
        """
        headers = dict(scope["headers"])
        request = pb.AcceptInvitationRequest(
            token=token,
            name=name,
            password=password,
            address=self._clients.address(scope, headers),
            user_agent=headers.get(b"user-agent", b"").decode("latin-1"),
        )
        answer = await answer_of(
            self._members.AcceptInvitation, request, DEADLINE_S, internal_metadata(self._token)
        )
        return self._first_cookie(answer)

    def _first_cookie(self, answer: pb.SignInResponse | pb.AcceptInvitationResponse) -> Header:
        credential = self._signatures.session(answer.token, "test")
        return self.cookie(credential, answer.expire_time.ToDatetime(clock.UTC))

    def base_url(self, scope: Scope) -> str:
        """The address under which people reach us: as it is set, or as the request has it."""
        if self._public_url:
            return self._public_url
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        return f"{scope['scheme']}://{host}"

    async def sign_out(self, asking: Viewer) -> Header:
        """End the session; the header that takes its cookie from the browser."""
        await answer_of(
            self._members.EndSession,
            pb.EndSessionRequest(token=self._token_of(asking)),
            DEADLINE_S,
            internal_metadata(self._token),
        )
        return self.cookie("", None)

    def in_mode(self, asking: Viewer, mode: str) -> Header:
        """The header that makes the browser go on in "live" or "test"."""
        credential = self._signatures.session(self._token_of(asking), mode)
        return self.cookie(credential, asking.principal.expire_time)

    def _token_of(self, asking: Viewer) -> str:
        parts = self._signatures.read_session(asking.credential)
        assert parts is not None
        return parts[0]

    def cookie(self, credential: str, expire_time: datetime | None) -> Header:
        """The header that sets the cookie, or takes it away when there is no credential."""
        seconds = 0
        if credential and expire_time is not None:
            seconds = max(0, int((expire_time - clock.now()).total_seconds()))
        secure = "; Secure" if self.secure else ""
        value = f"{self._cookie}={credential}; Path=/; Max-Age={seconds}"
        return b"set-cookie", f"{value}; HttpOnly; SameSite=Lax{secure}".encode()


def csrf_token(credential: str) -> str:
    """What only our own pages know of a session, in one mode."""
    digest = hmac.digest(credential.encode(), b"csrf", hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
