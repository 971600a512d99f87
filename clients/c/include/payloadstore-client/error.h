/* What can go wrong in a call: one enum, and a buffer for the story behind it. */
#ifndef PAYLOADSTORE_CLIENT_ERROR_H
#define PAYLOADSTORE_CLIENT_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PLC_API __attribute__((visibility("default")))
#else
#define PLC_API
#endif

/*
 * A code up to 16 is the gRPC status code of that number. From 101 on a cause has a code of its
 * own: 100 and the number of the contract's Reason, which the server sends beside the status. From
 * 201 on are this library's own. Numbers never change; newer libraries may know more of them.
 */
#define PLC_CODE_MAP(X)                                                                    \
    X(0, OK, "success")                                                                    \
    X(1, CANCELLED, "cancelled")                                                           \
    X(2, UNKNOWN, "the server failed without saying how")                                  \
    X(3, INVALID_ARGUMENT, "an argument could never be right")                             \
    X(4, DEADLINE_EXCEEDED, "no answer in time")                                           \
    X(5, NOT_FOUND, "no such store, or no record of that length there")                    \
    X(6, ALREADY_EXISTS, "it exists")                                                      \
    X(7, PERMISSION_DENIED, "permission denied")                                           \
    X(8, RESOURCE_EXHAUSTED, "the server has no room for this")                            \
    X(9, FAILED_PRECONDITION, "not in this state of the store")                            \
    X(10, ABORTED, "aborted")                                                              \
    X(11, OUT_OF_RANGE, "out of range")                                                    \
    X(12, UNIMPLEMENTED, "the server does not know the call")                              \
    X(13, INTERNAL, "the answer cannot be understood")                                     \
    X(14, UNAVAILABLE, "the server cannot be reached, stops, or its disk failed")          \
    X(15, DATA_LOSS, "the record is damaged")                                              \
    X(16, UNAUTHENTICATED, "not authenticated")                                            \
    X(101, EPOCH_STALE, "another writer has claimed the store: stop writing")              \
    X(102, HANDLE_UNKNOWN, "the store never gave that seal out")                           \
    X(103, HANDLE_SUPERSEDED, "a later seal has been compacted: seal again")               \
    X(104, COMPACTION_RUNNING, "a compaction of the store runs: try again later")          \
    X(105, LIVE_REF_UNREADABLE, "a live ref cannot be read: nothing was changed")          \
    X(106, EXPECTED_LIVE_DIFFERS, "the server did not get as many live refs as were sent") \
    X(107, REF_NOT_KEPT, "the compaction that has committed was not given this ref")       \
    X(108, DISK_RESERVE, "the disk is down to its reserve: compact, or free some")         \
    X(109, PAYLOAD_TOO_LARGE, "the payload is larger than the server takes")               \
    X(110, NOT_COMMITTED, "the stream ended without commit: nothing was changed")          \
    X(201, NO_MEMORY, "out of memory")                                                     \
    X(202, STOPPED, "a callback of the caller's stopped it")                               \
    X(203, ANSWER_LOST, "sent, and the answer was lost: it may have been stored, or not")  \
    X(204, CLOSED, "it is being closed")

enum plc_code {
#define PLC_CODE(number, name, text) PLC_##name = (number),
    PLC_CODE_MAP(PLC_CODE)
#undef PLC_CODE
};

/* Plain memory: nothing to free. Filled by every call that takes one, also on success. */
struct plc_error {
    enum plc_code code; /* what the call returned */
    int status;         /* the gRPC status of the call; 0 where it never was one */
    char reason[64];    /* as the server named it ("EPOCH_STALE"), also one this library is too old
                           to have a code for; "": none */
    char message[1024]; /* for people: store, ref and cause; "" after success */
};

/* "EPOCH_STALE"; "UNKNOWN" for a number that is no code. Never NULL. */
PLC_API const char *plc_code_name(int code);

/* One line for people, without a full stop. Never NULL. */
PLC_API const char *plc_strerror(int code);

#ifdef __cplusplus
}
#endif

#endif
