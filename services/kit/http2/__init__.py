"""A gRPC server over HTTP/2 in the event loop's own thread (ADR 58): `server.Server`."""
