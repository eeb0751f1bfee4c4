"""Structured logs on stderr: one line an event, for a person on a terminal, JSON for everything else."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from discovery.config import LogFormat, LogLevel

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
# Without the values of variables: they may be what a client must keep secret.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def set_up_logs(
    level: LogLevel, log_format: LogFormat | None, stream: TextIO | None = None
) -> FilteringBoundLogger:
    """Return the program's logger, and send the logs of libraries the same way.

    Without a `log_format`, a terminal gets `console` and anything else `json`. It touches no global state but the
    root logger of the standard library, which libraries write to.
    """
    stream = stream or sys.stderr
    renderer = _renderer(log_format or _fitting_format(stream), stream)
    number = logging.getLevelNamesMapping()[level.upper()]
    _capture_library_logs(number, renderer, stream)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[*_SHARED, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    return logger


def _fitting_format(stream: TextIO) -> LogFormat:
    return "console" if stream.isatty() else "json"


def _renderer(log_format: LogFormat, stream: TextIO) -> tuple[Processor, ...]:
    if log_format == "console":
        plain = structlog.dev.plain_traceback
        return (structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain),)
    return (_TRACEBACKS, structlog.processors.JSONRenderer())


def _capture_library_logs(level: int, renderer: tuple[Processor, ...], stream: TextIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    # A library's chatter is of use to somebody who debugs the library.
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
