/* A gRPC server in this process and a channel to it, for tests of the server's own services. */
#ifndef TESTS_UNIT_SERVER_FIXTURE_H
#define TESTS_UNIT_SERVER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <grpc-c/grpc-c.h>

#define PATIENCE_MS 60000 /* how long a test waits for what must happen before it fails */

struct server_fixture {
    grpc_c_server *server;
    grpc_c_channel *channel;
};

/* A deadline for every call, so that a test fails instead of hanging. */
extern const struct grpc_c_call_options patient;

/* Makes the server; services are to be added to it, then server_fixture_start. */
void server_fixture_create(struct server_fixture *fixture);
void server_fixture_start(struct server_fixture *fixture);

void server_fixture_destroy(struct server_fixture *fixture);

#endif
