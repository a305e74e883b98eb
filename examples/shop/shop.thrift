namespace py shop

struct Thing {
    1: string id
    2: string title
    3: i32 left
    /** False when nobody could say how many are left. */
    4: bool sure = true
}

service Stock {
    /** How many are left. */
    i32 left(1: string id) (idempotent = "true")
    /** From now on this instance answers so late, or with errors: for the demonstration. */
    void trouble(1: double seconds, 2: bool fail)
}

service Item {
    Thing get(1: string id) (idempotent = "true")
}

service Gateway {
    string show(1: string id) (idempotent = "true")
}
