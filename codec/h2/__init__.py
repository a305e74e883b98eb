"""HTTP/2 without sockets (RFC 9113), both roles; `codec.h2.connection` says how it is used."""
