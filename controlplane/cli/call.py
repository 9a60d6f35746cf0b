"""Calling an RPC that is known by its descriptor only; foreign errors become ``CallError`` here.

``grpc`` is imported when a channel is opened, so that help and completion do not wait for it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from google.protobuf.message import Message

from controlplane.cli.descriptors import RPC, Catalogue
from controlplane.cli.errors import CallError
from controlplane.cli.settings import Connection

if TYPE_CHECKING:
    import grpc

# A proxy from the environment must not see the admin API. Servers answer pings that come more often than every five
# minutes with GOAWAY unless they are told otherwise, so a stream whose server is gone is noticed after that.
_CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.keepalive_time_ms", 310_000))


class Client:
    """One channel to an admin API; a context manager that closes it."""

    def __init__(self, connection: Connection, catalogue: Catalogue) -> None:
        self._connection = connection
        self._catalogue = catalogue
        self._channel = _open(connection)

    def __repr__(self) -> str:
        return f"Client({self._connection.address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, rpc: RPC, request: Message) -> Message:
        """The one answer to a request, within the connection's timeout; raises ``CallError``."""
        import grpc  # noqa: PLC0415 - see above

        kind = self._channel.stream_unary if rpc.client_streaming else self._channel.unary_unary
        invoke: Any = kind(rpc.method, **self._codecs(rpc))
        try:
            answer: Message = invoke(
                iter((request,)) if rpc.client_streaming else request,
                timeout=self._connection.timeout_s,
                metadata=self._metadata(),
            )
        except grpc.RpcError as error:
            raise _translated(error, self._connection) from error
        return answer

    def stream(self, rpc: RPC, request: Message, timeout_s: float | None) -> Iterator[Message]:
        """The answers of a server stream as they come; without a timeout until either side ends it.

        Raises ``CallError``.
        """
        import grpc  # noqa: PLC0415 - see above

        kind = self._channel.stream_stream if rpc.client_streaming else self._channel.unary_stream
        invoke: Any = kind(rpc.method, **self._codecs(rpc))
        try:
            yield from invoke(
                iter((request,)) if rpc.client_streaming else request, timeout=timeout_s, metadata=self._metadata()
            )
        except grpc.RpcError as error:
            raise _translated(error, self._connection) from error

    def call_all_pages(self, rpc: RPC, request: Any) -> Message:
        """All pages of a list as one answer; raises ``CallError``."""
        merged: Any = self.call(rpc, request)
        seen = set()
        while merged.next_page_token:
            if merged.next_page_token in seen:
                raise CallError("INTERNAL", "the server repeats a page")
            seen.add(merged.next_page_token)
            request.page_token = merged.next_page_token
            page: Any = self.call(rpc, request)
            merged.MergeFrom(page)
            # MergeFrom keeps the old token where the last page has none.
            merged.next_page_token = page.next_page_token
        whole: Message = merged
        return whole

    def _codecs(self, rpc: RPC) -> dict[str, Any]:
        return {
            "request_serializer": lambda message: message.SerializeToString(),
            "response_deserializer": self._catalogue.message_class(rpc.response).FromString,
        }

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self._connection.token
        return (("authorization", f"Bearer {token.reveal()}"),) if token is not None else ()


def is_paged(rpc: RPC) -> bool:
    """Whether the RPC answers in pages."""
    return "page_token" in rpc.request.fields_by_name and "next_page_token" in rpc.response.fields_by_name


def _open(connection: Connection) -> "grpc.Channel":
    import grpc  # noqa: PLC0415 - see above

    tls = connection.tls
    if tls is None:
        return grpc.insecure_channel(connection.address, options=_CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=tls.authority, private_key=tls.key, certificate_chain=tls.certificate
    )
    return grpc.secure_channel(connection.address, credentials, options=_CHANNEL_OPTIONS)


def _translated(error: Any, connection: Connection) -> CallError:
    status = error.code().name
    details = " ".join((error.details() or "").split())
    if status == "UNAVAILABLE" and "connect" in details.lower():
        details = f"cannot reach {connection.address}: {details}"
    elif status == "DEADLINE_EXCEEDED":
        details = f"no answer from {connection.address} in time"
    return CallError(status, details)
