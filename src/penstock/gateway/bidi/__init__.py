"""InvokeEndpointWithBidirectionalStream: HTTP/2 with the client, WebSocket with the container.

Optional: `h2` and `wsproto` come with the extra `bidi`. Nothing outside this package imports them, and `alpn.py`, through which the rest of
the gateway comes in, imports the others only where both are installed.
"""
