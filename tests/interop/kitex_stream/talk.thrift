// What weego and Kitex say to each other in streams; see test_kitex_stream.py.
namespace go talk
namespace py talk

struct Request {
    1: string message
    2: binary body
    3: i32 count
    4: string action
}

struct Reply {
    1: string message
    2: binary body
    3: i32 count
    4: map<string, string> facts
}

exception Refused {
    1: string why
    2: i32 code
}

service Talk {
    Reply say(1: Request req) throws (1: Refused refused)
    /** `count` replies to one request. */
    Reply watch(1: Request req) throws (1: Refused refused) (streaming.mode = "server")
    /** One reply: how many requests, and how many bytes. */
    Reply collect(1: Request req) (streaming.mode = "client")
    /** A reply to each request. */
    Reply chat(1: Request req) throws (1: Refused refused) (streaming.mode = "bidirectional")
}

/** What only one side has. */
service Elsewhere extends Talk {
    Reply nowhere(1: Request req) (streaming.mode = "bidirectional")
}
