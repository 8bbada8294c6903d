"""How this program asks its own server: by HTTP, or by HTTPS with the server's key pinned."""

from __future__ import annotations

import http.client
import ssl


def connect_to_self(host: str, port: int, timeout_s: float, pin: str | None) -> http.client.HTTPConnection:
    """A connection, not yet opened; over TLS where there is a ``pin``, and then to the holder of that key only."""
    if pin is None:
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    return PinnedConnection(host, port, timeout_s, pin)


class PinnedConnection(http.client.HTTPSConnection):
    """HTTPS whose server is known by its public key: no authority, no name and no date is asked."""

    def __init__(self, host: str, port: int, timeout_s: float, pin: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        super().__init__(host, port, timeout=timeout_s, context=context)
        self._pin = pin

    def connect(self) -> None:
        """Raises OSError; ssl.SSLCertVerificationError, which is one, where another key answers."""
        from embedded_server.certificates import public_key_pin  # cryptography is not for every start

        super().connect()
        if public_key_pin(self.sock.getpeercert(binary_form=True) or b"") != self._pin:
            self.close()
            raise ssl.SSLCertVerificationError("the server showed another key than its own")
