#include "server_fixture.h"

#include <stdio.h>

const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

void server_fixture_create(struct server_fixture *fixture)
{
    fixture->server = grpc_c_server_create(NULL);
    assert_non_null(fixture->server);
}

void server_fixture_start(struct server_fixture *fixture)
{
    char target[40];
    char error[256] = "";
    int port = 0;

    if (grpc_c_server_listen(fixture->server, "127.0.0.1:0", &port, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
    assert_int_equal(grpc_c_server_start(fixture->server), 0);
    (void)snprintf(target, sizeof target, "127.0.0.1:%d", port);
    fixture->channel = grpc_c_channel_create(target, NULL);
    assert_non_null(fixture->channel);
}

void server_fixture_destroy(struct server_fixture *fixture)
{
    grpc_c_channel_destroy(fixture->channel);
    grpc_c_server_destroy(fixture->server);
    *fixture = (struct server_fixture){0};
}
