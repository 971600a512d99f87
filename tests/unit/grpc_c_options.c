/*
 * What each option of a server about connections does to one: seen by a client of a few lines that
 * speaks HTTP/2's frames, and by the library's own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "grpc_c_fixture.h"

static const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};

/* -- frames -------------------------------------------------------------------------------------
 */

enum { HEADERS = 1, SETTINGS = 4, PING = 6, GOAWAY = 7, ACK = 1 };
enum { NO_ERROR = 0, ENHANCE_YOUR_CALM = 11 };
enum { MAX_CONCURRENT_STREAMS = 3, MAX_HEADER_LIST_SIZE = 6 };

struct frame {
    unsigned type;
    unsigned flags;
    size_t length;
    uint8_t payload[16384];
};

static int raw_open(const struct fixture *fixture)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)fixture->port)};
    struct timeval patience = {PATIENCE_MS / 1000, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void raw_send(int fd, const void *data, size_t length)
{
    assert_int_equal(send(fd, data, length, MSG_NOSIGNAL), length);
}

/* A connection on which HTTP/2 was begun. */
static int raw_greet(const struct fixture *fixture)
{
    int fd = raw_open(fixture);

    raw_send(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
    return fd;
}

/* False where the server has closed the connection. It fails the test where it says nothing. */
static bool raw_read(int fd, void *out, size_t length)
{
    ssize_t n = recv(fd, out, length, MSG_WAITALL);

    if (n < 0 && errno != ECONNRESET) {
        fail_msg("no frame: %s", strerror(errno));
    }
    return n == (ssize_t)length;
}

static bool next_frame(int fd, struct frame *frame)
{
    uint8_t head[9] = {0};

    if (!raw_read(fd, head, sizeof(head))) {
        return false;
    }
    frame->length = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
    frame->type = head[3];
    frame->flags = head[4];
    assert_true(frame->length <= sizeof(frame->payload));
    return frame->length == 0 || raw_read(fd, frame->payload, frame->length);
}

static uint32_t number_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The first frame of either type that is no acknowledgement. */
static void await_frame(int fd, unsigned type, unsigned other, struct frame *frame)
{
    do {
        assert_true(next_frame(fd, frame));
    } while ((frame->type != type && frame->type != other) ||
             (frame->type != HEADERS && (frame->flags & ACK) != 0)); /* there it means the end */
}

static void await_close(int fd)
{
    struct frame frame = {0};

    while (next_frame(fd, &frame)) {
    }
    close(fd);
}

/* -- what is told at once -----------------------------------------------------------------------
 */

static uint32_t setting(const struct fixture *fixture, unsigned id, uint32_t otherwise)
{
    struct frame frame = {0};
    int fd = raw_greet(fixture);

    await_frame(fd, SETTINGS, SETTINGS, &frame);
    close(fd);
    for (size_t i = 0; i + 6 <= frame.length; i += 6) {
        if (((unsigned)frame.payload[i] << 8 | frame.payload[i + 1]) == id) {
            return number_at(frame.payload + i + 2);
        }
    }
    return otherwise;
}

static atomic_uint open_now;
static atomic_uint open_most;

static void count_open(grpc_c_call *call)
{
    unsigned now = atomic_fetch_add(&open_now, 1) + 1;
    unsigned most = atomic_load(&open_most);

    while (now > most && !atomic_compare_exchange_weak(&open_most, &most, now)) {
    }
    insist(grpc_c_call_read(call));
}

static void count_closed(grpc_c_call *call, const echo_request *request)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    if (request != NULL) {
        insist(grpc_c_call_read(call));
        return;
    }
    atomic_fetch_sub(&open_now, 1);
    insist(grpc_c_call_finish(call, &ok));
}

static void *chat_once(void *arg)
{
    const struct fixture *fixture = arg;
    struct grpc_c_result result = {0};
    grpc_c_stream *stream = grpc_c_stream_open(fixture->channel, echo_chat, &patient);
    echo_request request = ECHO_REQUEST;

    insist(grpc_c_stream_write(stream, &request.base) == 0);
    grpc_c_stream_finish(stream, &result);
    insist(result.code == GRPC_C_OK);
    grpc_c_result_fini(&result);
    return NULL;
}

static void streams_above_the_limit_wait_at_the_client(void **state)
{
    struct echo_handlers handlers = {.chat = count_open, .chat_message = count_closed};
    struct grpc_c_server_options options = {.max_concurrent_streams = 2};
    struct fixture fixture;
    pthread_t threads[8];

    (void)state;
    fixture_start(&fixture, &options, &handlers);
    assert_int_equal(setting(&fixture, MAX_CONCURRENT_STREAMS, UINT32_MAX), 2);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, chat_once, &fixture), 0);
    }
    for (size_t i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_in_range(open_most, 1, 2);
    fixture_stop(&fixture);
    fixture_start(&fixture, NULL, &handlers);
    assert_int_equal(setting(&fixture, MAX_CONCURRENT_STREAMS, UINT32_MAX), UINT32_MAX);
    fixture_stop(&fixture);
}

static enum grpc_c_code call_with_metadata(const struct fixture *fixture, size_t length)
{
    char value[4000];
    struct grpc_c_metadata entry = {"key", value, length};
    struct grpc_c_call_options options = {
        .timeout_ms = PATIENCE_MS, .metadata = &entry, .n_metadata = 1};
    struct grpc_c_result result = {0};
    echo_request request = ECHO_REQUEST;
    enum grpc_c_code code;
    ProtobufCMessage *response;

    memset(value, 'v', sizeof(value));
    response = grpc_c_unary(fixture->channel, echo_unary, &request.base, &options, &result);
    if (response != NULL) {
        protobuf_c_message_free_unpacked(response, NULL);
    }
    code = result.code;
    grpc_c_result_fini(&result);
    return code;
}

static void metadata_above_the_limit_is_refused(void **state)
{
    struct grpc_c_server_options options = {.max_metadata_bytes = 2000};
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, &options, NULL);
    assert_int_equal(setting(&fixture, MAX_HEADER_LIST_SIZE, 0), 2000);
    assert_int_equal(call_with_metadata(&fixture, 1000), GRPC_C_OK);
    assert_int_equal(call_with_metadata(&fixture, 3000), GRPC_C_RESOURCE_EXHAUSTED);
    fixture_stop(&fixture);
    fixture_start(&fixture, NULL, NULL);
    assert_int_equal(setting(&fixture, MAX_HEADER_LIST_SIZE, 0), 8192);
    assert_int_equal(call_with_metadata(&fixture, 3000), GRPC_C_OK);
    fixture_stop(&fixture);
}

static void messages_above_the_limit_are_not_sent(void **state)
{
    struct grpc_c_server_options options = {.max_send_bytes = 1000};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    uint8_t payload[2000] = {0};

    (void)state;
    fixture_start(&fixture, &options, NULL);
    request.payload.data = payload;
    request.payload.len = 900;
    grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
    request.payload.len = sizeof(payload);
    echo_fails(fixture.channel, echo_unary, &request, GRPC_C_RESOURCE_EXHAUSTED,
               "Sent message larger than max");
    fixture_stop(&fixture);
}

/* -- names --------------------------------------------------------------------------------------
 */

/* A field of HTTP/2's headers in its plainest form. Returns where the next one goes. */
static uint8_t *put_header(uint8_t *at, const char *name, const char *value)
{
    *at++ = 0;
    *at++ = (uint8_t)strlen(name);
    at = mempcpy(at, name, strlen(name));
    *at++ = (uint8_t)strlen(value);
    return mempcpy(at, value, strlen(value));
}

static void a_call_by_any_name_of_the_server_arrives(void **state)
{
    static const uint8_t head[] = {0, 0, 0, HEADERS, 5, 0, 0, 0, 1}; /* the call's only frame */
    struct fixture fixture;
    struct frame frame = {0};
    uint8_t call[256];
    uint8_t *end = mempcpy(call, head, sizeof(head));
    int fd;

    (void)state;
    end = put_header(end, ":method", "POST");
    end = put_header(end, ":scheme", "http");
    end = put_header(end, ":path", echo_unary->path);
    end = put_header(end, ":authority", "some.other.example:1234");
    end = put_header(end, "content-type", "application/grpc");
    end = put_header(end, "te", "trailers");
    call[2] = (uint8_t)(end - call - (ptrdiff_t)sizeof(head));
    fixture_start(&fixture, NULL, NULL);
    fd = raw_greet(&fixture);
    raw_send(fd, call, (size_t)(end - call));
    await_frame(fd, HEADERS, HEADERS, &frame);
    /* What the method says of a call without a message; others are not told of one. */
    assert_non_null(memmem(frame.payload, frame.length, "without its request", 19));
    close(fd);
    fixture_stop(&fixture);
}

/* -- age and idleness ---------------------------------------------------------------------------
 */

static void tell_peer(grpc_c_call *call, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;

    (void)request;
    response.text = (char *)grpc_c_call_peer(call);
    insist(grpc_c_call_reply(call, &response.base));
}

/* Calls until they come by another connection than the first one did. */
static void await_new_connection(const struct fixture *fixture)
{
    int64_t until = now_ms() + PATIENCE_MS;
    char first[64] = "";
    bool anew = false;

    while (!anew) {
        echo_request request = ECHO_REQUEST;
        echo_response *response = echo_ok(fixture->channel, &request);
        anew = first[0] != '\0' && strcmp(first, response->text) != 0;
        (void)snprintf(first, sizeof(first), "%s", response->text);
        grpcc__test__echo_response__free_unpacked(response, NULL);
        assert_true(now_ms() < until);
    }
}

static bool echoes(grpc_c_stream *stream)
{
    echo_request request = ECHO_REQUEST;
    ProtobufCMessage *message;

    if (grpc_c_stream_write(stream, &request.base) != 0) {
        return false;
    }
    message = grpc_c_stream_read(stream);
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
    return message != NULL;
}

static void an_old_connection_takes_no_new_calls_and_keeps_those_it_has(void **state)
{
    struct echo_handlers handlers = echo_default;
    struct grpc_c_server_options options = {.max_connection_age_ms = 200};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    struct frame frame = {0};
    grpc_c_stream *stream;
    int fd;

    (void)state;
    handlers.unary = tell_peer;
    fixture_start(&fixture, &options, &handlers);
    stream = grpc_c_stream_open(fixture.channel, echo_chat, &patient);
    assert_true(echoes(stream));
    await_new_connection(&fixture);
    assert_true(echoes(stream));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
    fd = raw_greet(&fixture);
    await_frame(fd, GOAWAY, GOAWAY, &frame);
    assert_int_equal(number_at(frame.payload + 4), NO_ERROR);
    close(fd);
    fixture_stop(&fixture);
}

static void calls_that_outlast_the_grace_are_cut_off(void **state)
{
    struct grpc_c_server_options options = {.max_connection_age_ms = 100,
                                            .max_connection_age_grace_ms = 100};
    struct grpc_c_result result = {0};
    struct fixture fixture;
    grpc_c_stream *stream;

    (void)state;
    fixture_start(&fixture, &options, NULL);
    stream = grpc_c_stream_open(fixture.channel, echo_chat, &patient);
    assert_true(echoes(stream));
    assert_null(grpc_c_stream_read(stream)); /* nothing was asked for: it ends with the stream */
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_UNAVAILABLE);
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static void an_idle_connection_is_ended(void **state)
{
    struct grpc_c_server_options options = {.max_connection_idle_ms = 100};
    struct fixture fixture;
    struct frame frame = {0};
    int fd;

    (void)state;
    fixture_start(&fixture, &options, NULL);
    fd = raw_greet(&fixture);
    await_frame(fd, GOAWAY, GOAWAY, &frame);
    close(fd);
    fixture_stop(&fixture);
}

static void a_connection_that_is_not_grpc_in_time_is_dropped(void **state)
{
    struct grpc_c_server_options options = {.handshake_timeout_ms = 100,
                                            .keepalive_ms = 3600 * 1000}; /* else it is that */
    struct fixture fixture;

    (void)state;
    fixture_start(&fixture, &options, NULL);
    await_close(raw_open(&fixture)); /* it never says a word */
    fixture_stop(&fixture);
}

/* -- pings --------------------------------------------------------------------------------------
 */

static void a_peer_that_answers_no_ping_is_dropped(void **state)
{
    struct grpc_c_server_options options = {.keepalive_ms = 100, .keepalive_timeout_ms = 100};
    struct fixture fixture;
    struct frame frame = {0};
    int fd;

    (void)state;
    fixture_start(&fixture, &options, NULL);
    fd = raw_greet(&fixture);
    await_frame(fd, PING, GOAWAY, &frame);
    assert_int_equal(frame.type, PING);
    await_close(fd);
    fixture_stop(&fixture);
}

static void without_calls_there_are_no_pings_if_so_asked(void **state)
{
    struct grpc_c_server_options options = {
        .keepalive_ms = 50, .keepalive_with_calls_only = true, .max_connection_idle_ms = 500};
    struct fixture fixture;
    struct frame frame = {0};
    int fd;

    (void)state;
    fixture_start(&fixture, &options, NULL);
    fd = raw_greet(&fixture);
    await_frame(fd, PING, GOAWAY, &frame); /* GOAWAY comes of idleness, ten pings late */
    assert_int_equal(frame.type, GOAWAY);
    close(fd);
    fixture_stop(&fixture);
}

/* Pings `n` times, `apart_ms` between them; each must be answered, and the client kept. */
static void ping(int fd, unsigned n, unsigned apart_ms)
{
    struct timespec apart = {0, apart_ms * 1000000L};
    struct frame frame = {0};

    for (unsigned i = 0; i < n; i++) {
        raw_send(fd, "\0\0\10\6\0\0\0\0\0pingpong", 17);
        do {
            assert_true(next_frame(fd, &frame));
            assert_int_not_equal(frame.type, GOAWAY);
        } while (frame.type != PING || (frame.flags & ACK) == 0);
        nanosleep(&apart, NULL);
    }
}

/* Goes on until it is sent away: what core writes of its own accord at first may make it forget a
 * ping. */
static void ping_until_goaway(int fd, struct frame *frame)
{
    for (unsigned i = 0; i < 20 && frame->type != GOAWAY; i++) {
        raw_send(fd, "\0\0\10\6\0\0\0\0\0pingpong", 17);
        do {
            assert_true(next_frame(fd, frame));
        } while (frame->type != GOAWAY && (frame->type != PING || (frame->flags & ACK) == 0));
    }
    assert_int_equal(frame->type, GOAWAY);
}

static void a_client_that_pings_too_often_is_sent_away(void **state)
{
    struct grpc_c_server_options lenient = {.min_ping_interval_ms = 1};
    struct fixture fixture;
    struct frame frame = {0};
    int fd;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    fd = raw_greet(&fixture);
    ping(fd, 3, 0); /* two of them in a hurry */
    ping_until_goaway(fd, &frame);
    assert_int_equal(number_at(frame.payload + 4), ENHANCE_YOUR_CALM);
    assert_non_null(memmem(frame.payload, frame.length, "too_many_pings", 14));
    await_close(fd);
    fixture_stop(&fixture);
    fixture_start(&fixture, &lenient, NULL);
    fd = raw_greet(&fixture);
    ping(fd, 20, 5);
    close(fd);
    fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_above_the_limit_wait_at_the_client),
        cmocka_unit_test(metadata_above_the_limit_is_refused),
        cmocka_unit_test(messages_above_the_limit_are_not_sent),
        cmocka_unit_test(a_call_by_any_name_of_the_server_arrives),
        cmocka_unit_test(an_old_connection_takes_no_new_calls_and_keeps_those_it_has),
        cmocka_unit_test(calls_that_outlast_the_grace_are_cut_off),
        cmocka_unit_test(an_idle_connection_is_ended),
        cmocka_unit_test(a_connection_that_is_not_grpc_in_time_is_dropped),
        cmocka_unit_test(a_peer_that_answers_no_ping_is_dropped),
        cmocka_unit_test(without_calls_there_are_no_pings_if_so_asked),
        cmocka_unit_test(a_client_that_pings_too_often_is_sent_away),
    };

    return cmocka_run_group_tests_name("grpc_c_options", tests, NULL, NULL);
}
