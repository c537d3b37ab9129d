"""Organizations' keys of their providers: sealed where they are stored."""

from typing import TYPE_CHECKING

from services.kit.database import TenantKey
from services.kit.errors import PreconditionError, UnavailableError

if TYPE_CHECKING:
    from services.kit.sealing import Sealer

_PURPOSE = "usageflow payment secrets"
_SETTING = "PAYMENT_SECRETS_KEY"
_PREFIXES = {"live": ("sk_live_", "rk_live_"), "test": ("sk_test_", "rk_test_")}
KEY_CHARS_MAX = 255
HINT_CHARS = 4


class ProviderKeys:
    """Seals and opens them. `keys`: as kit.sealing has them; none: there can't be any."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys
        self._made: Sealer | None = None

    def seal(self, tenant: TenantKey, api_key: str) -> bytes:
        """PreconditionError when the installation has no key to seal with."""
        if not self._keys:
            raise PreconditionError(
                f"USAGEFLOW_{_SETTING} is not set, so no key of a provider can be kept",
                reason="no_payment_secrets_key",
            )
        return self._sealer().seal(api_key.encode(), _place(tenant))

    def open(self, tenant: TenantKey, sealed: bytes) -> str:
        """UnavailableError when none of the keys opens it."""
        from services.kit.sealing import SealError

        if not self._keys:
            raise UnavailableError(f"USAGEFLOW_{_SETTING} is not set")
        try:
            return self._sealer().open(sealed, _place(tenant)).decode()
        except SealError as error:
            raise UnavailableError(f"A provider's key does not open: {error}") from None

    def _sealer(self) -> "Sealer":
        # Some megabytes, which an installation without providers does without.
        from services.kit.sealing import Sealer

        if self._made is None:
            self._made = Sealer(self._keys, _PURPOSE, _SETTING)
        return self._made


def is_stripe_key(api_key: str, mode: str) -> bool:
    """Whether it is a secret or restricted key of the mode: no test ever moves money."""
    known = api_key.startswith(_PREFIXES[mode])
    return known and len(api_key) <= KEY_CHARS_MAX and api_key.isascii() and api_key.isprintable()


def hint_of(api_key: str) -> str:
    """What may be shown of it."""
    return f"…{api_key[-HINT_CHARS:]}"


def _place(tenant: TenantKey) -> str:
    return f"{tenant.organization_id} {tenant.mode} stripe"
