"""Connecting for a webhook: the addresses of its host are checked, and the connection goes to one of the very same."""

import httpx

from app.webhooks.target import parse_target, require_public, resolve

CONNECT_S = 4.0


class CheckedTransport(httpx.AsyncHTTPTransport):
    """Asks for the addresses once, so that no second answer can lead elsewhere. TLS is still with the host's name.

    Raises SlimlineError for a target that is not allowed, httpx.ConnectError when there is no way to it.
    """

    def __init__(self, *, allow_private: bool) -> None:
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0))
        self._allow_private = allow_private

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Try one address after another."""
        parse_target(str(request.url), allow_private=self._allow_private)
        try:
            addresses = await resolve(request.url)
        except OSError:
            raise httpx.ConnectError("the host name cannot be resolved", request=request) from None
        if not self._allow_private:
            require_public(addresses)
        refusal: httpx.TransportError = httpx.ConnectError("the host has no address", request=request)
        for address in addresses:
            try:
                return await super().handle_async_request(_directed(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                refusal = error
        raise refusal


def _directed(request: httpx.Request, address: str) -> httpx.Request:
    """The same request to an address; its Host header and the name for TLS stay the host's."""
    name = request.url.raw_host.decode("ascii").strip("[]")
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": name},
    )
