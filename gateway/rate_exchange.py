"""Gateways tell each other what was taken from the limits, so that together they keep to them.

Ten times a second each tells what it let through since, and takes off what the others did. When its
own reports do not come back NATS is away: it then lets through its part of each limit, as many
parts as there were gateways.
"""

import asyncio
import os
import time
from typing import Final

from usageflow.gateway.v1 import messages_pb2 as pb

from gateway.rates import Bucket, Quota, Rates
from services.kit.errors import UnavailableError
from services.kit.messaging import Messaging

SUBJECT: Final = "usageflow.gateway.rates"
REPORT_S: Final = 0.1
# When nothing was taken a report only says that its gateway lives, each so many times.
REPORTS_QUIET: Final = 5
# Without its own reports for this long a gateway is cut off; it knows before it forgets the others.
CUT_OFF_S: Final = 2.0
GONE_S: Final = 4.0
GATEWAYS_MAX: Final = 1_000
# What is beyond is told with the next report. A message of NATS has at most a megabyte.
TAKEN_PER_REPORT_MAX: Final = 5_000
_MICROS: Final = 1_000_000


class RateExchange:
    """Tells the others, and listens to them."""

    def __init__(self, rates: Rates, messaging: Messaging) -> None:
        self._rates = rates
        self._messaging = messaging
        self._id = os.urandom(12).hex()
        self._heard_s: dict[str, float] = {}
        self._own_heard_s = time.monotonic()

    async def start(self) -> None:
        """Begin to listen."""
        await self._messaging.on_broadcast(SUBJECT, self._hear)

    async def run(self) -> None:
        """For ever: tell what was taken."""
        # The first report only says that we are here.
        quiet = -1
        while True:
            await asyncio.sleep(REPORT_S)
            self._look_around()
            report = self._report()
            quiet = 0 if report.taken else quiet + 1
            if quiet % REPORTS_QUIET == 0:
                try:
                    await self._messaging.mention(SUBJECT, report.SerializeToString())
                except UnavailableError:
                    # What is not told now is old news later: _look_around() makes up for it.
                    continue

    def _look_around(self) -> None:
        """How many share the limits, when they can't tell each other."""
        now_s = time.monotonic()
        if now_s - self._own_heard_s > CUT_OFF_S:
            self._rates.share.gateways = 1 + len(self._heard_s)
            return
        self._rates.share.gateways = 1
        for gateway_id, heard_s in list(self._heard_s.items()):
            if now_s - heard_s > GONE_S:
                del self._heard_s[gateway_id]

    def _report(self) -> pb.RatesReport:
        report = pb.RatesReport(gateway_id=self._id)
        for quota in self._rates.quotas():
            if max(quota.requests.used_s, quota.events.used_s) * _MICROS >= 1:
                report.taken.append(_taken(quota))
                if len(report.taken) == TAKEN_PER_REPORT_MAX:
                    break
        return report

    async def _hear(self, payload: bytes) -> None:
        report, now_s = pb.RatesReport.FromString(payload), time.monotonic()
        if report.gateway_id == self._id:
            self._own_heard_s = now_s
            return
        if len(self._heard_s) < GATEWAYS_MAX or report.gateway_id in self._heard_s:
            self._heard_s[report.gateway_id] = now_s
        for taken in report.taken:
            quota = self._rates.quota(taken.subject)
            quota.requests.owe(taken.requests_micros / _MICROS, now_s)
            quota.events.owe(taken.events_micros / _MICROS, now_s)


def _taken(quota: Quota) -> pb.Taken:
    return pb.Taken(
        subject=quota.subject,
        requests_micros=_told(quota.requests),
        events_micros=_told(quota.events),
    )


def _told(bucket: Bucket) -> int:
    """What is told now; the part of a microsecond is left for the next report."""
    micros = int(bucket.used_s * _MICROS)
    bucket.used_s -= micros / _MICROS
    return micros
