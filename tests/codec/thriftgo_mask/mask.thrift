namespace go mask

enum Color { RED = 1, BLUE = 2 }

struct Inner {
    1: i32 a
    2: optional string b
    3: required i64 c
}

union Choice {
    1: i32 number
    2: string text
}

struct Outer {
    1: string name
    2: optional Inner inner
    3: list<i32> numbers
    4: list<Inner> inners
    5: map<string, i32> by_name
    6: map<i32, Inner> by_id
    7: map<Color, string> by_color
    8: set<i32> marks
    9: required string must
    10: required Inner must_inner
    11: optional Outer self
    12: map<bool, string> by_flag
    13: list<list<i32>> rows
    14: map<string, map<i32, Inner>> deep
    15: bool flag
    16: double real
    17: binary raw
    18: Color color
    100: optional i16 far
    19: optional Choice choice
    20: map<binary, i32> by_bytes
}
