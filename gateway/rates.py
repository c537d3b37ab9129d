"""How fast callers may go: token buckets of organizations and of API keys.

A bucket is one number: when it will be full again. Taking moves that moment on by the time in which
what was taken comes back (the generic cell rate algorithm). So what other gateways took can be
added at any time, and a bucket that lies in the past is a full one. It costs 0.7 us a request.
"""

import math
import time
from typing import Final

from gateway.errors import HttpError, retry_after
from services.kit.auth import Principal

# A bucket holds what comes in this time.
BURST_S: Final = 1.0
# Ten times a tenth is not quite one.
ROUNDING_S: Final = 1e-6
# Answers to events tell the limits when so much of one is used up; all other answers always do.
TOLD_FROM_S: Final = BURST_S / 2
# A body of many events is taken when one more event may be; what it is beyond is owed, so long.
OWED_S_MAX: Final = 60.0
# Of organizations and keys together; full buckets are forgotten first.
QUOTAS_MAX: Final = 20_000
CALLERS_MAX: Final = 10_000


class Bucket:
    """What may be taken at once, and how fast it comes back: `per_s` a second, 0: without limit."""

    __slots__ = ("full_at_s", "interval_s", "name", "per_s", "unit", "used_s")

    def __init__(self, name: str, unit: str) -> None:
        self.name = name
        self.unit = unit
        self.per_s = 0
        self.interval_s = 0.0
        self.full_at_s = 0.0
        # What was taken here since the others were told.
        self.used_s = 0.0

    def limit(self, per_s: int) -> None:
        """Set how fast it may go from now on."""
        if per_s == self.per_s:
            return
        self.per_s = per_s
        self.interval_s = 1 / per_s if per_s else 0.0
        if not per_s:
            self.full_at_s = 0.0

    def owe(self, seconds: float, now_s: float) -> None:
        """Account for what takes so long to come back."""
        full_at_s = (max(now_s, self.full_at_s)) + seconds
        self.full_at_s = min(full_at_s, now_s + BURST_S + OWED_S_MAX)

    @property
    def policy(self) -> str:
        """Its item of RateLimit-Policy."""
        unit = "" if self.unit == "requests" else f';qu="{self.unit}"'
        return f'"{self.name}";q={self.per_s};w={BURST_S:.0f}{unit}'


class Quota:
    """The two buckets of an organization in one mode, or of a key."""

    __slots__ = ("events", "requests", "subject")

    def __init__(self, subject: str) -> None:
        kind = "key" if subject.startswith("key_") else "organization"
        self.subject = subject
        self.requests = Bucket(f"{kind}-requests", "requests")
        self.events = Bucket(f"{kind}-events", "events")


class Share:
    """Of how many gateways each has to do without the others: 1 while they tell each other."""

    __slots__ = ("gateways",)

    def __init__(self) -> None:
        self.gateways = 1


class Caller:
    """One key, or one member, and what holds for it; made anew whenever accounts has answered."""

    __slots__ = ("_all", "_events", "_policies", "_requests", "_share", "_taken_s", "principal")

    def __init__(self, principal: Principal, quotas: tuple[Quota, ...], share: Share) -> None:
        self.principal = principal
        self._share = share
        # Of the fullest bucket, when the last event was taken.
        self._taken_s = 0.0
        self._requests = tuple(each.requests for each in quotas if each.requests.per_s)
        self._events = tuple(each.events for each in quotas if each.events.per_s)
        self._all = self._requests + self._events
        self._policies = ", ".join(bucket.policy for bucket in self._all)

    def take_request(self) -> HttpError | None:
        """Take one request that is not of the hot path; the refusal when there is none left."""
        return self._take(self._requests, 1, 0)

    def take_one(self) -> HttpError | None:
        """Take one event and the request that brings it: take_events(1) of the hot path."""
        now_s, gateways = time.monotonic(), self._share.gateways
        most_s = now_s + BURST_S + ROUNDING_S
        for bucket in self._all:
            full_at_s = bucket.full_at_s
            if full_at_s > now_s and full_at_s + bucket.interval_s * gateways > most_s:
                self._taken_s = BURST_S
                return self._refusal(now_s)
        fullest_at_s = now_s
        for bucket in self._all:
            cost_s = bucket.interval_s
            bucket.used_s += cost_s
            full_at_s = bucket.full_at_s
            if full_at_s < now_s:
                full_at_s = now_s
            bucket.full_at_s = full_at_s = full_at_s + cost_s * gateways
            if full_at_s > fullest_at_s:
                fullest_at_s = full_at_s
        self._taken_s = fullest_at_s - now_s
        return None

    def take_events(self, events: int, requests: int = 1) -> HttpError | None:
        """Take events, and the request that brings them; the refusal when one of both is used up.

        `requests` 0: it was taken before its events could be counted.
        """
        return self._take(self._all if requests else self._events, requests, events)

    def _take(self, buckets: tuple[Bucket, ...], requests: int, events: int) -> HttpError | None:
        now_s, gateways = time.monotonic(), self._share.gateways
        most_s = now_s + BURST_S + ROUNDING_S
        for bucket in buckets:
            full_at_s = bucket.full_at_s
            # Full is always enough, also for a share of less than one.
            if full_at_s > now_s and full_at_s + bucket.interval_s * gateways > most_s:
                return self._refusal(now_s)
        if requests:
            for bucket in self._requests:
                cost_s = bucket.interval_s * requests
                bucket.used_s += cost_s
                bucket.owe(cost_s * gateways, now_s)
        if events:
            for bucket in self._events:
                cost_s = bucket.interval_s * events
                bucket.used_s += cost_s
                bucket.owe(cost_s * gateways, now_s)
        return None

    def _tightest(self) -> Bucket:
        """The bucket that will be empty first."""
        tightest = self._all[0]
        for bucket in self._all:
            if bucket.full_at_s > tightest.full_at_s:
                tightest = bucket
        return tightest

    def _refusal(self, now_s: float) -> HttpError:
        bucket = self._tightest()
        wait_s = bucket.full_at_s + bucket.interval_s * self._share.gateways - BURST_S - now_s
        whose = bucket.name.partition("-")[0]
        return HttpError(
            429,
            "rate_limited",
            f"The limit of this {whose} is {bucket.per_s} {bucket.unit} a second; "
            "nothing was done, try again later",
            headers=retry_after(wait_s),
        )

    def head(self) -> dict[str, str]:
        """RateLimit-Policy, and RateLimit of what will be used up first
        (draft-ietf-httpapi-ratelimit-headers-10).
        """
        return {"ratelimit-policy": self._policies, "ratelimit": self._remaining()}

    def head_of_event(self) -> dict[str, str]:
        """Head of the answer to one event: nothing while not even half of anything is used up, for
        it takes longer than all the rest.
        """
        return self.head() if self._taken_s >= TOLD_FROM_S else {}

    def lines_of_event(self) -> bytes:
        """The same as lines."""
        if self._taken_s < TOLD_FROM_S:
            return b""
        text = f"ratelimit-policy: {self._policies}\r\nratelimit: {self._remaining()}\r\n"
        return text.encode()

    def _remaining(self) -> str:
        bucket = self._tightest()
        taken_s = max(0.0, bucket.full_at_s - time.monotonic())
        left_s = max(0.0, BURST_S + ROUNDING_S - taken_s)
        left = int(left_s / (bucket.interval_s * self._share.gateways))
        return f'"{bucket.name}";r={left};t={math.ceil(taken_s)}'


class Rates:
    """The quotas of all who call this gateway, or another one of which we were told."""

    def __init__(self) -> None:
        self.share = Share()
        self._callers: dict[str, Caller] = {}
        self._quotas: dict[str, Quota] = {}

    def caller(self, principal: Principal) -> Caller:
        """What holds for whoever calls."""
        caller = self._callers.get(_own(principal))
        if caller is not None and caller.principal is principal:
            return caller
        return self._known(principal)

    def _known(self, principal: Principal) -> Caller:
        """With the limits that accounts tells now."""
        organization = f"{principal.organization_id}:{principal.mode_name}"
        # Members have buckets of their own: who has to raise a limit must not be kept out by it.
        own = _own(principal)
        named = (organization, own) if principal.key_id else (own,)
        # Not between the two: what is forgotten would not be told to the others any more.
        if len(self._quotas) > QUOTAS_MAX - len(named):
            self._forget()
        quotas = tuple(self.quota(subject) for subject in named)
        for quota in quotas:
            if quota.subject == principal.key_id:
                quota.requests.limit(principal.key_requests_per_s)
                quota.events.limit(principal.key_events_per_s)
            else:
                quota.requests.limit(principal.requests_per_s)
                quota.events.limit(principal.events_per_s)
        if len(self._callers) >= CALLERS_MAX:
            del self._callers[next(iter(self._callers))]
        self._callers[own] = caller = Caller(principal, quotas, self.share)
        return caller

    def quota(self, subject: str) -> Quota:
        """The buckets of an organization or key, full when nothing is known of them."""
        quota = self._quotas.get(subject)
        if quota is None:
            if len(self._quotas) >= QUOTAS_MAX:
                self._forget()
            quota = self._quotas[subject] = Quota(subject)
        return quota

    def _forget(self) -> None:
        """Make room: full buckets first, which come back as they are; else the oldest tenth."""
        now_s = time.monotonic()
        self._callers.clear()
        full = [
            subject
            for subject, quota in self._quotas.items()
            if max(quota.requests.full_at_s, quota.events.full_at_s) <= now_s
        ]
        for subject in full or list(self._quotas)[: QUOTAS_MAX // 10]:
            del self._quotas[subject]

    def quotas(self) -> list[Quota]:
        """All of them."""
        return list(self._quotas.values())


def _own(principal: Principal) -> str:
    """The key, or in its place the session or the portal's link."""
    return principal.key_id or principal.session_id or principal.portal_link_id
