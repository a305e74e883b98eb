/* Names that meet Python's, the runtime's, each other, or the types they are written with. */
include "shared.thrift"
namespace py shop.collisions

typedef list<string> Names
typedef map<string, Names> list_

enum Color { RED = 1, GREEN = 2, None = 3, name = 4, known = 5, real = 6 }
enum Empty {}

const i32 float = 7
const Color FAVOURITE = Color.GREEN
const uuid NIL = "00000000-0000-0000-0000-000000000000"

struct Base { 1: i32 own }

struct Shadows {
    1: shared.Base Base
    2: Base own = {"own": 2}
    3: list<string> list = ["x"]
    4: set<string> set
    5: map<string, string> dict
    6: string str
    7: i32 int = float
    8: double float
    9: Color Color = Color.RED
    10: Names Names
    11: string self
    12: i32 stub = shared.LIMIT
    13: uuid UUID
    14: bool bool = true
    15: binary bytes = "\x00\xff"
    16: string copy
    17: Empty empty
    18: i32 class
    19: i32 class_
    20: i32 __private
    21: Color NOTHING = Color.None
}

union Choice {
    1: i32 value
    2: string which
    3: Shadows shadows
    4: i32 None
}

exception Broken {
    1: string args
    2: i32 with_traceback
    3: optional Shadows cause
}

struct EchoClient { 1: i32 a }
struct stub { 1: stub stub }

service Echo extends shared.Health {
    stub list(1: stub stub, 2: i32 self, 3: double timeout, 4: string result) throws (1: Broken broken)
    list<string> close()
    void getId()
    void get_id()
    Color Color(1: Color Color = Color.RED, 2: i32 limit = shared.LIMIT)
    void import(1: string from)
    oneway void _invoke(1: optional i32 int)
    i32 ping2HTTPServer()
}
