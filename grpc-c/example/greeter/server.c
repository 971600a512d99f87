/* greeter-server ADDRESS */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "greeter.grpc-c.h"

/* A reply with `text` in it; or the call fails, and the return is false. */
static bool greet(grpc_c_call *call, const char *greeting, const Hello__HelloRequest *request,
                  char text[100], Hello__HelloReply *reply)
{
    if (snprintf(text, 100, "%s, %s!", greeting, request->name) >= 100) {
        grpc_c_call_fail(call, GRPC_C_INVALID_ARGUMENT, "the name is too long");
        return false;
    }
    hello__hello_reply__init(reply);
    reply->text = text;
    return true;
}

static void say_hello(grpc_c_call *call, const Hello__HelloRequest *request, void *user)
{
    Hello__HelloReply reply;
    char text[100];

    (void)user;
    if (greet(call, "Hello", request, text, &reply)) {
        hello__greeter__say_hello__reply(call, &reply);
    }
}

/* A chat has begun. Its messages come one by one, each when it is asked for. */
static void chat(grpc_c_call *call, void *user)
{
    (void)user;
    grpc_c_call_read(call);
}

static void chat_message(grpc_c_call *call, const Hello__HelloRequest *request, void *user)
{
    const struct grpc_c_status ok = {.code = GRPC_C_OK};
    Hello__HelloReply reply;
    char text[100];

    if (request == NULL) { /* that were all */
        grpc_c_call_finish(call, &ok);
    } else if (greet(call, "Welcome", request, text, &reply)) {
        hello__greeter__chat__send(call, &reply, chat, user); /* when it is sent, the next */
    }
}

static const struct hello__greeter_handlers handlers = {
    .say_hello = say_hello,
    .chat = chat,
    .chat__message = chat_message,
};

int main(int argc, char **argv)
{
    grpc_c_server *server = grpc_c_server_create(NULL);
    char error[256] = "out of memory";
    sigset_t stop;
    int signal;

    /* Blocked here, they wait for sigwait. */
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, NULL);

    if (argc != 2 || server == NULL || hello__greeter__service_init(server, &handlers) != 0 ||
        grpc_c_server_listen(server, argv[1], NULL, error, sizeof(error)) != 0 ||
        grpc_c_server_start(server) != 0) {
        fprintf(stderr, "greeter-server: %s\n", argc == 2 ? error : "takes an address");
        grpc_c_server_destroy(server);
        return EXIT_FAILURE;
    }
    sigwait(&stop, &signal);
    grpc_c_server_shutdown(server, 5000); /* running calls have 5 s to end */
    grpc_c_server_destroy(server);
    return EXIT_SUCCESS;
}
