"""The data plane: accept, authenticate, route, relay, frame.

Owns the ports that clients speak to. It must never import the control plane: what it knows of endpoints and keys is a `RoutingTable`
that comes over a socket, and whatever is not an invocation it relays to the control process unread.
"""
