/*
 * gRPC status: the outcome of a call.
 *
 * The codes and their meaning are gRPC's own
 * (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
 */
#ifndef GRPC_C_STATUS_H
#define GRPC_C_STATUS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GRPC_C_API                 __attribute__((visibility("default")))
#define GRPC_C_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define GRPC_C_API
#define GRPC_C_PRINTF(text, first)
#endif

#define GRPC_C_STATUS_MAP(X)  \
    X(0, OK)                  \
    X(1, CANCELLED)           \
    X(2, UNKNOWN)             \
    X(3, INVALID_ARGUMENT)    \
    X(4, DEADLINE_EXCEEDED)   \
    X(5, NOT_FOUND)           \
    X(6, ALREADY_EXISTS)      \
    X(7, PERMISSION_DENIED)   \
    X(8, RESOURCE_EXHAUSTED)  \
    X(9, FAILED_PRECONDITION) \
    X(10, ABORTED)            \
    X(11, OUT_OF_RANGE)       \
    X(12, UNIMPLEMENTED)      \
    X(13, INTERNAL)           \
    X(14, UNAVAILABLE)        \
    X(15, DATA_LOSS)          \
    X(16, UNAUTHENTICATED)

enum grpc_c_code {
#define GRPC_C_CODE(number, name) GRPC_C_##name = (number),
    GRPC_C_STATUS_MAP(GRPC_C_CODE)
#undef GRPC_C_CODE
};

/* What a call ends with. Every pointer is borrowed by the function that takes the struct. */
struct grpc_c_status {
    enum grpc_c_code code;
    const char *message;   /* UTF-8, for people; NULL: none */
    const void *details;   /* a serialised google.rpc.Status whose code equals `code`; NULL: none */
    size_t details_length; /* bytes; message and details together stay under 4 KiB, see MANUAL.md */
};

/* "NOT_FOUND" for 5; "UNKNOWN" for a number that is no gRPC status code. Never NULL. */
GRPC_C_API const char *grpc_c_code_name(int code);

#ifdef __cplusplus
}
#endif

#endif
