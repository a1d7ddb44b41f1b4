//! HTTP/1.1 by hand: strict framing (RFC 9112), spans over one buffer, no allocation per request.
