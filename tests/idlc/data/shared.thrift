// Definitions that other files of the test data include.
namespace py shop.shared

/** How something ended. */
enum Status { OK = 0, FAILED = 3 }

struct Base {
    1: string id
    2: optional map<string, string> extra
}

const i32 LIMIT = 20
const list<string> TAGS = ["a", "b"]
const Base ORIGIN = {"id": "origin"}

exception Refused {
    1: string message
    2: Status status = Status.FAILED
}

service Health {
    bool ping()
    Base getBase(1: string id) throws (1: Refused refused)
}
