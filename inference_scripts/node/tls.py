"""TLS of the node: of the server that senders reach, and of the client that the PACS sees.

server_context("node.pem", "node.key", None)               # senders need no certificate
server_context("node.pem", "node.key", "hospital.pem")     # they need one of that authority
client_context("hospital.pem", None, None)                 # the PACS's must be of that authority
"""

import ssl


def server_context(certificate: str, key: str | None, ca: str | None) -> ssl.SSLContext:
    """TLS of a server: its certificate, and with `ca` only clients with a certificate of that authority.

    Raises:
        OSError: a file cannot be read or is none (ssl.SSLError is an OSError).
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.load_cert_chain(certificate, key)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """TLS of a client: servers of that authority, or of the system's, and a certificate of its own where it has one.

    Raises:
        OSError: as `server_context`.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
