/**
 * The smallest service there is: it answers with what it was told.
 *
 * `weego gen examples/echo/echo.thrift -o gen` makes the package `gen.echo` of it.
 */

/** What a client says. */
struct Request {
    1: string message  // any text
}

/** What it hears back. */
struct Response {
    1: string message  // the text of the request
}

service Echo {
    /** Answer with the message of the request. */
    Response echo(1: Request req)
}
