/* What the options of a channel do, seen from a real server and from the wire in between. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "grpc_c_fixture.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

/* -- a proxy ---------------------------------------------------------------------------------- */

#define MAX_PAIRS 64u
#define KEPT      4096u
#define BITE      100u /* forwarded at a time: a connection can break in the middle of anything */

/* Between a client and a server on this machine, on a thread of its own. */
struct proxy {
    int listener;
    int port;
    int to;              /* the server's port; 0: there is none, connections are closed at once */
    atomic_uint cut;     /* nothing is forwarded, and nothing closed */
    atomic_int left;     /* connections break when so much more was forwarded; negative: never */
    atomic_uint stopped; /* the thread ends */
    atomic_uint accepted;
    pthread_t thread;
    int pairs[MAX_PAIRS][2]; /* client, server; -1: closed */
    size_t n_pairs;
    pthread_mutex_t lock; /* guards the rest */
    char said[KEPT];      /* what clients said first */
    size_t n_said;
};

static struct sockaddr_in local(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    address.sin_port = htons((uint16_t)port);
    return address;
}

static void keep_said(struct proxy *proxy, const char *bytes, size_t n)
{
    size_t room;

    pthread_mutex_lock(&proxy->lock);
    room = KEPT - proxy->n_said;
    memcpy(proxy->said + proxy->n_said, bytes, n < room ? n : room);
    proxy->n_said += n < room ? n : room;
    pthread_mutex_unlock(&proxy->lock);
}

static void take_connection(struct proxy *proxy)
{
    struct sockaddr_in to = local(proxy->to);
    int client = accept(proxy->listener, NULL, NULL);
    int server;

    insist(client >= 0);
    atomic_fetch_add(&proxy->accepted, 1);
    if (proxy->to == 0) {
        close(client);
        return;
    }
    server = socket(AF_INET, SOCK_STREAM, 0);
    insist(connect(server, (struct sockaddr *)&to, sizeof(to)) == 0);
    insist(proxy->n_pairs < MAX_PAIRS);
    proxy->pairs[proxy->n_pairs][0] = client;
    proxy->pairs[proxy->n_pairs][1] = server;
    proxy->n_pairs++;
}

static void close_pair(int pair[2])
{
    for (size_t i = 0; i < 2; i++) {
        if (pair[i] >= 0) {
            close(pair[i]);
        }
        pair[i] = -1;
    }
}

static void forward(struct proxy *proxy, int pair[2], size_t from)
{
    char bytes[BITE];
    ssize_t n = read(pair[from], bytes, BITE);

    if (atomic_load(&proxy->left) == 0 || n <= 0 ||
        send(pair[1 - from], bytes, (size_t)n, MSG_NOSIGNAL) != n) {
        close_pair(pair);
        return;
    }
    if (atomic_load(&proxy->left) > 0) {
        atomic_fetch_sub(&proxy->left, 1);
    }
    if (from == 0) {
        keep_said(proxy, bytes, (size_t)n);
    }
}

static void *proxy_main(void *arg)
{
    struct proxy *proxy = arg;

    while (atomic_load(&proxy->stopped) == 0) {
        struct pollfd fds[1 + 2 * MAX_PAIRS] = {{proxy->listener, POLLIN, 0}};
        size_t n = atomic_load(&proxy->cut) != 0 ? 0 : proxy->n_pairs;
        for (size_t i = 0; i < 2 * n; i++) {
            fds[1 + i] = (struct pollfd){proxy->pairs[i / 2][i % 2], POLLIN, 0};
        }
        if (poll(fds, 1 + 2 * n, 10) <= 0) { /* and then a look at what was said */
            continue;
        }
        for (size_t i = 0; i < 2 * n; i++) {
            if (fds[1 + i].revents != 0 && proxy->pairs[i / 2][0] >= 0) {
                forward(proxy, proxy->pairs[i / 2], i % 2);
            }
        }
        if (fds[0].revents != 0) {
            take_connection(proxy);
        }
    }
    return NULL;
}

static void proxy_start(struct proxy *proxy, int to)
{
    struct sockaddr_in address = local(0);
    socklen_t size = sizeof(address);

    memset(proxy, 0, sizeof(*proxy));
    atomic_store(&proxy->left, -1);
    proxy->to = to;
    proxy->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(proxy->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(proxy->listener, 64), 0);
    assert_int_equal(getsockname(proxy->listener, (struct sockaddr *)&address, &size), 0);
    proxy->port = ntohs(address.sin_port);
    pthread_mutex_init(&proxy->lock, NULL);
    assert_int_equal(pthread_create(&proxy->thread, NULL, proxy_main, proxy), 0);
}

static void proxy_stop(struct proxy *proxy)
{
    atomic_store(&proxy->stopped, 1);
    pthread_join(proxy->thread, NULL);
    for (size_t i = 0; i < proxy->n_pairs; i++) {
        close_pair(proxy->pairs[i]);
    }
    close(proxy->listener);
    pthread_mutex_destroy(&proxy->lock);
}

/* Whether clients have said this, as it is on the wire. */
static bool was_said(struct proxy *proxy, const char *text)
{
    bool said;

    pthread_mutex_lock(&proxy->lock);
    said = memmem(proxy->said, proxy->n_said, text, strlen(text)) != NULL;
    pthread_mutex_unlock(&proxy->lock);
    return said;
}

static grpc_c_channel *connect_to(int port, const struct grpc_c_channel_options *options)
{
    char target[32];
    grpc_c_channel *channel;

    (void)snprintf(target, sizeof(target), "127.0.0.1:%d", port);
    channel = grpc_c_channel_create(target, options);
    assert_non_null(channel);
    return channel;
}

static bool becomes(grpc_c_channel *channel, enum grpc_c_channel_state state, bool wanted)
{
    int64_t until = now_ms() + PATIENCE_MS;
    struct timespec moment = {0, 1000000};

    while ((grpc_c_channel_state(channel) == state) != wanted && now_ms() < until) {
        nanosleep(&moment, NULL);
    }
    return (grpc_c_channel_state(channel) == state) == wanted;
}

static void echo_once(grpc_c_channel *channel)
{
    echo_request request = ECHO_REQUEST;

    grpcc__test__echo_response__free_unpacked(echo_ok(channel, &request), NULL);
}

/* -- servers that fall silent ----------------------------------------------------------------- */

static struct proxy *cut_when_called;

static void give_up(grpc_c_call *call, void *arg)
{
    (void)arg;
    grpc_c_call_fail(call, GRPC_C_CANCELLED, "the client has gone");
}

static void cut_it(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    grpc_c_call_on_cancel(call, give_up, NULL);
    atomic_store(&cut_when_called->cut, 1);
}

/* Half-open: the server's machine is cut off, and nobody says so. */
static void a_call_to_a_server_cut_off_ends(void **state)
{
    struct grpc_c_channel_options options = {.keepalive_ms = 100, .keepalive_timeout_ms = 100};
    struct echo_handlers handlers = {.unary = cut_it};
    struct fixture fixture;
    struct proxy proxy;
    grpc_c_channel *channel;
    echo_request request = ECHO_REQUEST;

    (void)state;
    fixture_start(&fixture, NULL, &handlers);
    proxy_start(&proxy, fixture.port);
    cut_when_called = &proxy;
    channel = connect_to(proxy.port, &options);
    echo_fails(channel, echo_unary, &request, GRPC_C_UNAVAILABLE, "keepalive");
    grpc_c_channel_destroy(channel);
    proxy_stop(&proxy);
    fixture_stop(&fixture);
}

static void a_channel_to_a_server_cut_off_knows(void **state)
{
    struct grpc_c_channel_options options = {
        .keepalive_ms = 100, .keepalive_timeout_ms = 100, .keepalive_without_calls = true};
    struct fixture fixture;
    struct proxy proxy;
    grpc_c_channel *channel;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    proxy_start(&proxy, fixture.port);
    channel = connect_to(proxy.port, &options);
    assert_int_equal(grpc_c_channel_wait_ready(channel, PATIENCE_MS), 0);
    atomic_store(&proxy.cut, 1);
    assert_true(becomes(channel, GRPC_C_CHANNEL_READY, false));
    grpc_c_channel_destroy(channel);
    proxy_stop(&proxy);
    fixture_stop(&fixture);
}

/* -- connections that break ------------------------------------------------------------------- */

/* A bidirectional call that says `n` things and hears them, and what became of it. */
struct talk {
    unsigned accepted;
    atomic_uint written;
    atomic_uint heard;
    atomic_uint done;
    enum grpc_c_code code;
};

static void heard(grpc_c_async_stream *stream, ProtobufCMessage *message,
                  const struct grpc_c_result *result, void (*typed)(void), void *user)
{
    struct talk *talk = user;

    (void)stream;
    (void)result;
    (void)typed;
    protobuf_c_message_free_unpacked(message, NULL);
    atomic_fetch_add(&talk->heard, 1);
}

static void written(grpc_c_async_stream *stream, bool taken, void *user)
{
    struct talk *talk = user;

    (void)stream;
    (void)taken;
    atomic_fetch_add(&talk->written, 1);
}

static void over(grpc_c_async_stream *stream, const struct grpc_c_result *result, void *user)
{
    struct talk *talk = user;

    (void)stream;
    talk->code = result->code;
    atomic_fetch_add(&talk->done, 1);
}

static void no_type(void)
{
}

static void talk_on(grpc_c_channel *channel, struct talk *talk)
{
    static const struct grpc_c_stream_events events = {
        .on_written = written, .on_done = over, .arrived = heard, .typed = no_type};
    grpc_c_async_stream *stream;
    echo_request request = ECHO_REQUEST;

    memset(talk, 0, sizeof(*talk));
    stream = grpc_c_stream_async(channel, echo_chat, NULL, &patient, &events, talk);
    assert_non_null(stream);
    for (unsigned i = 0; i < 5; i++) {
        talk->accepted += grpc_c_async_write(stream, &request.base) == 0;
        (void)grpc_c_async_read(stream);
    }
    (void)grpc_c_async_writes_done(stream);
    await_count(&talk->done, 1);
    assert_int_equal(talk->done, 1);
    assert_int_equal(talk->written, talk->accepted);
    grpc_c_async_release(stream);
}

/* So every completion fails at some time; a call that was lost is told so, none waits for ever. */
static void a_connection_may_break_at_any_byte(void **state)
{
    struct fixture fixture;
    bool well = false;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    for (int n = 0; !well; n++) {
        struct grpc_c_result result = {0};
        struct talk talk;
        struct proxy proxy;
        grpc_c_channel *channel;
        grpc_c_stream *stream;
        echo_request request = ECHO_REQUEST;

        proxy_start(&proxy, fixture.port);
        atomic_store(&proxy.left, n);
        channel = connect_to(proxy.port, NULL);
        talk_on(channel, &talk);
        well = talk.code == GRPC_C_OK;
        assert_true(well || talk.code == GRPC_C_UNAVAILABLE);
        assert_true(!well || talk.heard == 5);
        stream = grpc_c_stream_open(channel, echo_chat, &patient);
        (void)grpc_c_stream_write(stream, &request.base);
        protobuf_c_message_free_unpacked(grpc_c_stream_read(stream), NULL);
        grpc_c_stream_finish(stream, &result);
        assert_true(result.code == GRPC_C_UNAVAILABLE || (well && result.code == GRPC_C_OK));
        grpc_c_result_fini(&result);
        grpc_c_channel_destroy(channel);
        proxy_stop(&proxy);
        assert_in_range(n, 0, 1000);
    }
    fixture_stop(&fixture);
}

/* -- connecting ------------------------------------------------------------------------------- */

/* It takes connections, and never says a word. The standard limit is longer than the call's. */
static void an_attempt_to_connect_has_a_limit(void **state)
{
    struct grpc_c_channel_options options = {.connect_timeout_ms = 100};
    struct grpc_c_call_options brief = {.timeout_ms = 5000};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    struct proxy proxy;
    grpc_c_channel *channel;
    echo_request request = ECHO_REQUEST;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    proxy_start(&proxy, fixture.port);
    atomic_store(&proxy.cut, 1);
    channel = connect_to(proxy.port, &options);
    assert_null(grpc_c_unary(channel, echo_unary, &request.base, &brief, &result));
    assert_int_equal(result.code, GRPC_C_UNAVAILABLE);
    grpc_c_result_fini(&result);
    grpc_c_channel_destroy(channel);
    proxy_stop(&proxy);
    fixture_stop(&fixture);
}

/* With the standard pauses, of up to five seconds, there are some ten in this time. */
static void attempts_to_connect_follow_as_fast_as_told(void **state)
{
    struct grpc_c_channel_options options = {.first_connect_ms = 10, .slowest_connect_ms = 20};
    struct proxy proxy;
    grpc_c_channel *channel;

    (void)state;
    proxy_start(&proxy, 0);
    channel = connect_to(proxy.port, &options);
    assert_int_equal(grpc_c_channel_wait_ready(channel, 1), -1);
    await_count(&proxy.accepted, 30);
    assert_int_equal(grpc_c_channel_wait_ready(channel, 1), -1);
    grpc_c_channel_destroy(channel);
    proxy_stop(&proxy);
}

static void a_channel_is_waited_for_until_it_is_ready(void **state)
{
    struct grpc_c_channel_options options = {.first_connect_ms = 10, .slowest_connect_ms = 20};
    char address[32];
    struct fixture fixture;
    grpc_c_channel *channel;

    (void)state;
    fixture_start(&fixture, NULL, NULL); /* for a port that is free */
    grpc_c_server_destroy(fixture.server);
    channel = connect_to(fixture.port, &options);
    assert_int_equal(grpc_c_channel_state(channel), GRPC_C_CHANNEL_IDLE);
    assert_int_equal(grpc_c_channel_wait_ready(channel, 50), -1);
    assert_int_not_equal(grpc_c_channel_state(channel), GRPC_C_CHANNEL_READY);
    assert_true(becomes(channel, GRPC_C_CHANNEL_FAILED, true));
    fixture.server = grpc_c_server_create(NULL);
    assert_int_equal(grpc_c_server_add_service(fixture.server, &echo_service, &echo_default), 0);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", fixture.port);
    assert_int_equal(grpc_c_server_listen(fixture.server, address, NULL, NULL, 0), 0);
    assert_int_equal(grpc_c_server_start(fixture.server), 0);
    assert_int_equal(grpc_c_channel_wait_ready(channel, PATIENCE_MS), 0);
    assert_int_equal(grpc_c_channel_state(channel), GRPC_C_CHANNEL_READY);
    echo_once(channel);
    grpc_c_channel_destroy(channel);
    fixture_stop(&fixture);
}

static void a_channel_without_calls_disconnects(void **state)
{
    struct grpc_c_channel_options options = {.idle_timeout_ms = 1000};
    struct fixture fixture;
    grpc_c_channel *channel;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    channel = connect_to(fixture.port, &options);
    echo_once(channel);
    assert_true(becomes(channel, GRPC_C_CHANNEL_IDLE, true));
    echo_once(channel);
    grpc_c_channel_destroy(channel);
    fixture_stop(&fixture);
}

/* -- what a call says ------------------------------------------------------------------------- */

static void a_call_says_who_asks_and_for_whom(void **state)
{
    struct grpc_c_channel_options options = {.authority = "payloads.example:77",
                                             .user_agent = "tests/1.0"};
    struct fixture fixture;
    struct proxy proxy;
    grpc_c_channel *channel;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    proxy_start(&proxy, fixture.port);
    channel = connect_to(proxy.port, &options);
    echo_once(channel);
    assert_true(was_said(&proxy, "payloads.example:77"));
    assert_true(was_said(&proxy, "tests/1.0 grpc-c/"));
    grpc_c_channel_destroy(channel);
    proxy_stop(&proxy);
    fixture_stop(&fixture);
}

static void the_result_says_who_answered_where_it_is_asked(void **state)
{
    struct grpc_c_call_options telling = {.timeout_ms = PATIENCE_MS, .tell_peer = true};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    char peer[40];
    ProtobufCMessage *response;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    (void)snprintf(peer, sizeof(peer), "ipv4:127.0.0.1:%d", fixture.port);
    response = grpc_c_unary(fixture.channel, echo_unary, &request.base, &telling, &result);
    assert_non_null(response);
    protobuf_c_message_free_unpacked(response, NULL);
    assert_string_equal(result.peer, peer);
    assert_null(result.identity); /* in plaintext nothing is proved */
    grpc_c_result_fini(&result);
    grpc_c_stream_finish(grpc_c_stream_open(fixture.channel, echo_chat, &telling), &result);
    assert_int_equal(result.code, GRPC_C_OK);
    assert_string_equal(result.peer, peer);
    grpc_c_result_fini(&result);
    grpc_c_stream_finish(grpc_c_stream_open(fixture.channel, echo_chat, &patient), &result);
    assert_null(result.peer);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

/* -- sizes ------------------------------------------------------------------------------------ */

static void ended(grpc_c_async_stream *stream, ProtobufCMessage *message,
                  const struct grpc_c_result *result, void (*typed)(void), void *user)
{
    (void)stream;
    (void)message;
    (void)typed;
    insist(result->code == GRPC_C_RESOURCE_EXHAUSTED);
    atomic_fetch_add((atomic_uint *)user, 1);
}

static void a_message_above_the_limit_is_not_sent(void **state)
{
    static const struct grpc_c_stream_events events = {.arrived = ended, .typed = no_type};
    static uint8_t bytes[1000];
    struct grpc_c_channel_options options = {.max_send_bytes = 1003}; /* with a key and a length */
    struct grpc_c_result result = {0};
    struct fixture fixture;
    grpc_c_channel *channel;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *blocking;
    grpc_c_async_stream *stream;
    atomic_uint done = 0;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    channel = connect_to(fixture.port, &options);
    request.payload.data = bytes;
    request.payload.len = sizeof(bytes);
    grpcc__test__echo_response__free_unpacked(echo_ok(channel, &request), NULL);
    request.number = 1;
    echo_fails(channel, echo_unary, &request, GRPC_C_RESOURCE_EXHAUSTED, "1005 bytes");
    blocking = grpc_c_stream_open(channel, echo_chat, &patient);
    assert_int_equal(grpc_c_stream_write(blocking, &request.base), -1);
    grpc_c_stream_finish(blocking, &result);
    assert_int_equal(result.code, GRPC_C_RESOURCE_EXHAUSTED);
    grpc_c_result_fini(&result);
    stream = grpc_c_stream_async(channel, echo_collect, NULL, &patient, &events, &done);
    assert_int_equal(grpc_c_async_write(stream, &request.base), -1);
    await_count(&done, 1);
    grpc_c_async_release(stream);
    grpc_c_channel_destroy(channel);
    fixture_stop(&fixture);
}

static void too_large(grpc_c_async_stream *stream, const struct grpc_c_result *result, void *user)
{
    (void)stream;
    insist(result->code == GRPC_C_RESOURCE_EXHAUSTED);
    atomic_fetch_add((atomic_uint *)user, 1);
}

static void a_message_above_the_limit_is_not_taken(void **state)
{
    static const struct grpc_c_stream_events events = {
        .on_done = too_large, .arrived = ended, .typed = no_type};
    static uint8_t bytes[1000];
    struct grpc_c_channel_options options = {.max_receive_bytes = 1003};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    grpc_c_channel *channel;
    echo_request request = ECHO_REQUEST;
    grpc_c_stream *blocking;
    grpc_c_async_stream *stream;
    atomic_uint done = 0;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    channel = connect_to(fixture.port, &options);
    request.payload.data = bytes;
    request.payload.len = sizeof(bytes);
    grpcc__test__echo_response__free_unpacked(echo_ok(channel, &request), NULL);
    request.number = 1;
    echo_fails(channel, echo_unary, &request, GRPC_C_RESOURCE_EXHAUSTED, "1005");
    blocking = grpc_c_stream_open(channel, echo_chat, &patient);
    assert_int_equal(grpc_c_stream_write(blocking, &request.base), 0);
    assert_null(grpc_c_stream_read(blocking));
    grpc_c_stream_finish(blocking, &result);
    assert_int_equal(result.code, GRPC_C_RESOURCE_EXHAUSTED);
    grpc_c_result_fini(&result);
    stream = grpc_c_stream_async(channel, echo_chat, NULL, &patient, &events, &done);
    assert_int_equal(grpc_c_async_write(stream, &request.base), 0);
    assert_int_equal(grpc_c_async_read(stream), 0);
    await_count(&done, 1);
    grpc_c_async_release(stream);
    grpc_c_channel_destroy(channel);
    fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_to_a_server_cut_off_ends),
        cmocka_unit_test(a_channel_to_a_server_cut_off_knows),
        cmocka_unit_test(a_connection_may_break_at_any_byte),
        cmocka_unit_test(an_attempt_to_connect_has_a_limit),
        cmocka_unit_test(attempts_to_connect_follow_as_fast_as_told),
        cmocka_unit_test(a_channel_is_waited_for_until_it_is_ready),
        cmocka_unit_test(a_channel_without_calls_disconnects),
        cmocka_unit_test(a_call_says_who_asks_and_for_whom),
        cmocka_unit_test(the_result_says_who_answered_where_it_is_asked),
        cmocka_unit_test(a_message_above_the_limit_is_not_sent),
        cmocka_unit_test(a_message_above_the_limit_is_not_taken),
    };

    return cmocka_run_group_tests_name("grpc_c_channel", tests, NULL, NULL);
}
