namespace py talk

struct Request {
    1: string message
    2: i32 count
}

struct Reply {
    1: string message
    2: i32 count
}

service Talk {
    /** `count` replies to one request. */
    Reply watch(1: Request req) (streaming.mode = "server")
    /** One reply to many requests. */
    Reply collect(1: Request req) (streaming.mode = "client")
    /** A reply to each request. */
    Reply chat(1: Request req) (streaming.mode = "bidirectional")
}
