"""Logs: one JSON object per line on stdout, or coloured lines for a person.

An event has a constant name in the past tense (``key_published``) and its data in fields; the name is what one greps
for. Everything that reaches a line is escaped by the JSON encoder, so a client cannot forge one, and passes
``redact``, so a key that slips into a message is cut to its prefix. Libraries that use ``logging`` come out in the
same form. Nobody waits for whoever reads: what cannot be written is counted, and the count is logged when it can.
"""

from __future__ import annotations

import logging
import logging.config
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec
import structlog

from shared.output import Output
from shared.redaction import redact

Logger = structlog.stdlib.BoundLogger

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "console")

# How long the first line waits for a reader that stalls; the next ones do not.
PATIENCE_S = 0.05

_ENCODER = msgspec.json.Encoder(enc_hook=str)


def configure(*, level: str, style: str, expected: tuple[str, ...] = (), **constants: str) -> None:
    """Sets up logging for this process; ``constants`` (plane, instance) are on every line.

    Messages of libraries that contain one of the ``expected`` texts are dropped: they report what we caused on purpose.
    """
    logging.config.dictConfig(logging_config(level=level, style=style, expected=expected, **constants))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors(constants),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def logging_config(*, level: str, style: str, expected: tuple[str, ...] = (), **constants: str) -> dict[str, Any]:
    """The same set-up as a ``logging`` configuration, for servers that configure themselves (granian)."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "gateway": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _shared_processors(constants),
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(style)],
            }
        },
        "filters": {"expected": {"()": _NotExpected, "texts": expected}},
        "handlers": {
            "stdout": {
                "()": _Stdout,
                "formatter": "gateway",
                "filters": ["expected"],
            },
        },
        "root": {"handlers": ["stdout"], "level": level.upper()},
        "loggers": {
            name: {"level": max(logging.WARNING, logging.getLevelName(level.upper()))}
            for name in ("httpx", "httpcore", "asyncio", "grpc")
        },
    }


def get(name: str) -> Logger:
    """The logger of a module; call it with an event name and fields: ``log.info("worker_started", pid=7)``."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger


class _NotExpected(logging.Filter):
    """Drops messages that contain one of the texts."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        super().__init__()
        self._texts = texts

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is worth a line."""
        return not (self._texts and isinstance(record.msg, str) and any(text in record.msg for text in self._texts))


class _Stdout(logging.Handler):
    """Lines to stdout, as it is when this is made, without waiting for whoever reads them."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stdout
        try:
            self._output: Output | None = Output(self._stream.fileno())
        except (OSError, ValueError):
            # Not a file: somebody keeps what is written.
            self._output = None
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line, or counts it."""
        try:
            line = f"{self.format(record)}\n"
        except Exception:
            self.handleError(record)
            return
        if self._output is None:
            self._stream.write(line)
        elif not self._output.write(line.encode(errors="replace"), patience_s=0.0 if self._lost else PATIENCE_S):
            self._lost += 1
        elif self._lost:
            lost, self._lost = self._lost, 0
            get(__name__).warning("log_lines_lost", count=lost)
            if self._lost:
                self._lost += lost


class _Constants:
    """Puts the same fields on every line. A class, because servers hand their log set-up to other processes."""

    def __init__(self, constants: Mapping[str, str]) -> None:
        self._constants = dict(constants)

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**self._constants, **event}


def _shared_processors(constants: Mapping[str, str]) -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        _Constants(constants),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.format_exc_info,
        _redact_event,
    ]


def _renderers(style: str) -> list[structlog.typing.Processor]:
    if style == "console":
        return [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    return [_render_json]


def _render_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return _ENCODER.encode(event).decode()


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact(value)
    return event
