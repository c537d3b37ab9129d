"""Where notifier's secrets are sealed for; how is kit.sealing's. Pure."""

from collections.abc import Sequence

from services.kit import sealing
from services.kit.sealing import OPENED_REMEMBERED_MAX, PREFIX_BYTES, SealError

__all__ = ["OPENED_REMEMBERED_MAX", "PREFIX_BYTES", "SealError", "Sealer"]


class Sealer(sealing.Sealer):
    """Seals webhook secrets with the first of `keys`, opens with any."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(keys, "usageflow webhook secrets", "WEBHOOK_SECRETS_KEY")


def secret_place(endpoint_id: str) -> str:
    """Where an endpoint's signing keys are sealed for."""
    return f"{endpoint_id} secret"


def headers_place(endpoint_id: str) -> str:
    """Where an endpoint's own headers are sealed for."""
    return f"{endpoint_id} headers"
