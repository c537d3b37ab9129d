"""structlog: one JSON object a line on stdout, with the ids of the running call."""

import logging
import sys

import structlog
from structlog.types import EventDict, WrappedLogger

from services.kit import context


def _add_call(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if current := context.request_id.get():
        event["request_id"] = current
        event["trace_id"] = context.trace_id.get()
    return event


def configure_logging(service: str, level: str = "info") -> None:
    """Send structlog's and the standard library's lines to stdout as JSON."""
    number = logging.getLevelNamesMapping()[level.upper()]

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[structlog.types.Processor] = [
        add_service,
        _add_call,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    # Libraries speak only when something is wrong; what they say at "info" is not for operators.
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
