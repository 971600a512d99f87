/* greeter-client ADDRESS NAME... */
#include <stdio.h>
#include <stdlib.h>

#include "greeter.grpc-c.h"

static const struct grpc_c_call_options options = {.timeout_ms = 30000, .wait_for_ready = true};

/* One call, one answer. */
static void say_hello(grpc_c_channel *channel, char *name, struct grpc_c_result *result)
{
    Hello__HelloRequest request = HELLO__HELLO_REQUEST__INIT;
    Hello__HelloReply *reply;

    request.name = name;
    reply = hello__greeter__say_hello__sync(channel, &request, &options, result);
    if (reply != NULL) {
        puts(reply->text);
        hello__hello_reply__free_unpacked(reply, NULL);
    }
}

/* One call, and as many answers as questions. */
static void chat(grpc_c_channel *channel, char **names, struct grpc_c_result *result)
{
    grpc_c_stream *stream = hello__greeter__chat__open(channel, &options);
    Hello__HelloRequest request = HELLO__HELLO_REQUEST__INIT;
    Hello__HelloReply *reply;

    if (stream == NULL) {
        result->code = GRPC_C_RESOURCE_EXHAUSTED;
        return;
    }
    for (; *names != NULL; names++) {
        request.name = *names;
        if (hello__greeter__chat__write(stream, &request) != 0) {
            break; /* the call is over; its result says why */
        }
        reply = hello__greeter__chat__read(stream);
        if (reply == NULL) {
            break;
        }
        puts(reply->text);
        hello__hello_reply__free_unpacked(reply, NULL);
    }
    grpc_c_stream_finish(stream, result);
}

int main(int argc, char **argv)
{
    struct grpc_c_result result = {0};
    grpc_c_channel *channel;
    int status = EXIT_SUCCESS;

    if (argc < 3) {
        fprintf(stderr, "usage: greeter-client ADDRESS NAME...\n");
        return EXIT_FAILURE;
    }
    channel = grpc_c_channel_create(argv[1], NULL);
    if (channel == NULL) {
        return EXIT_FAILURE; /* why has been logged */
    }
    say_hello(channel, argv[2], &result);
    if (result.code == GRPC_C_OK) {
        grpc_c_result_fini(&result);
        chat(channel, argv + 2, &result);
    }
    if (result.code != GRPC_C_OK) {
        fprintf(stderr, "%s: %s\n", grpc_c_code_name(result.code),
                result.message != NULL ? result.message : "");
        status = EXIT_FAILURE;
    }
    grpc_c_result_fini(&result);
    grpc_c_channel_destroy(channel);
    return status;
}
