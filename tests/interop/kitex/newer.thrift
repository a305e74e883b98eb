// The same service as the client of a later day knows it: with a method that the servers do not have yet.
namespace go newer
namespace py newer

include "conversation.thrift"

service Conversation extends conversation.Conversation {
    string missing(1: string text)
    oneway void missing_oneway(1: string text)
}

/** No server has this one. */
service Elsewhere {
    string nowhere(1: string text)
}
