/* What the interoperability suite's server and client share: short names, flags, zeros. */
#ifndef TESTS_INTEROP_INTEROP_H
#define TESTS_INTEROP_INTEROP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "grpc-c/grpc-c.h"
#include "src/proto/grpc/testing/test.grpc-c.h"

typedef Grpc__Testing__BoolValue bool_value;
typedef Grpc__Testing__EchoStatus echo_status;
typedef Grpc__Testing__Empty empty;
typedef Grpc__Testing__Payload payload;
typedef Grpc__Testing__ResponseParameters parameters;
typedef Grpc__Testing__SimpleRequest simple_request;
typedef Grpc__Testing__SimpleResponse simple_response;
typedef Grpc__Testing__StreamingInputCallRequest input_request;
typedef Grpc__Testing__StreamingInputCallResponse input_response;
typedef Grpc__Testing__StreamingOutputCallRequest output_request;
typedef Grpc__Testing__StreamingOutputCallResponse output_response;

#define BOOL_VALUE      GRPC__TESTING__BOOL_VALUE__INIT
#define ECHO_STATUS     GRPC__TESTING__ECHO_STATUS__INIT
#define EMPTY           GRPC__TESTING__EMPTY__INIT
#define PAYLOAD         GRPC__TESTING__PAYLOAD__INIT
#define PARAMETERS      GRPC__TESTING__RESPONSE_PARAMETERS__INIT
#define SIMPLE_REQUEST  GRPC__TESTING__SIMPLE_REQUEST__INIT
#define SIMPLE_RESPONSE GRPC__TESTING__SIMPLE_RESPONSE__INIT
#define INPUT_REQUEST   GRPC__TESTING__STREAMING_INPUT_CALL_REQUEST__INIT
#define INPUT_RESPONSE  GRPC__TESTING__STREAMING_INPUT_CALL_RESPONSE__INIT
#define OUTPUT_REQUEST  GRPC__TESTING__STREAMING_OUTPUT_CALL_REQUEST__INIT
#define OUTPUT_RESPONSE GRPC__TESTING__STREAMING_OUTPUT_CALL_RESPONSE__INIT

/* Sent back by the server: the first as a header, the second as a trailer. */
#define ECHO_HEADER  "x-grpc-test-echo-initial"
#define ECHO_TRAILER "x-grpc-test-echo-trailing-bin"

/* What payloads are made of, and the largest. */
#define PAYLOAD_MAX ((size_t)4 << 20)
extern uint8_t interop_zeros[PAYLOAD_MAX];

static inline payload zeros_of(size_t length)
{
    payload zeros = PAYLOAD;

    zeros.body.data = interop_zeros;
    zeros.body.len = length;
    return zeros;
}

/* One flag: "--name=value" or "-name=value". */
struct flag {
    const char *name;
    const char **value;
};

/* Sets the values of an array of flags that ends with a NULL name; ends the program on others. */
void flags_parse(const struct flag *flags, int argc, char **argv);

/* "true" or "false"; ends the program on others. */
bool flag_is_true(const char *name, const char *value);

#endif
