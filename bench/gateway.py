"""Starts the Jupyter Kernel Gateway that `cargo xtask bench --sessions` asks.

The gateway as it comes, but for two things: a free port of loopback, which it does not
tell by itself, and Nagle's algorithm turned off.

It is NO SANDBOX: whoever can call it owns the machine. Never let it listen on anything
but loopback.
"""

import socket

from kernel_gateway.gatewayapp import KernelGatewayApp
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets


def main() -> None:
    gateway = KernelGatewayApp.instance()
    gateway.initialize(["--log-level=WARN"], new_httpserver=False)
    sockets = bind_sockets(0, "127.0.0.1")
    # Connections inherit it, and tornado no longer takes it back after each request. The
    # answer to a cell comes in several messages, some of which would wait 40 ms for the
    # client's delayed acknowledgement.
    IOStream.set_nodelay = lambda stream, value: None
    sockets[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    gateway.http_server = HTTPServer(gateway.web_app)
    gateway.http_server.add_sockets(sockets)
    host, port = sockets[0].getsockname()
    print(f"listening on http://{host}:{port}", flush=True)
    gateway.start()


if __name__ == "__main__":
    main()
