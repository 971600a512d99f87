#include "h2.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <nghttp2/nghttp2.h>

#define FRAME_HEADER     9
#define FIRST_WINDOW     65535
#define WINDOW_MAX       0x7fffffff
#define WINDOW_LOW       ((uint64_t)1 << 30) /* what is received is acknowledged that much at a time */
#define DEFAULT_FRAME    16384u
#define RECEIVE_BYTES    ((size_t)256 << 10)
#define MESSAGE_PREFIX   5u
#define PLACES_MIN       4096u
#define FIRST_OF_DYNAMIC 62u
#define DYNAMIC_MIN      1024u /* of the server's header table: all of our headers take less */

enum {
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION
};
enum { END_STREAM = 0x1, ACK = 0x1, END_HEADERS = 0x4, PADDED = 0x8, HAS_PRIORITY = 0x20 };
enum { HEADER_TABLE_SIZE = 1, MAX_CONCURRENT = 3, INITIAL_WINDOW = 4, MAX_FRAME_SIZE = 5 };

struct frame {
    uint8_t type, flags;
    uint32_t id;
    const uint8_t *data;
    size_t n;
};

static void put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

__attribute__((format(printf, 2, 3))) static void break_off(struct h2_connection *connection,
                                                            const char *format, ...)
{
    if (!connection->broken[0]) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(connection->broken, sizeof connection->broken, format, arguments);
        va_end(arguments);
    }
}

/* -- sending ----------------------------------------------------------------------------------- */

/* The frame's header; its n bytes are the caller's to add. */
static void put_frame(struct h2_connection *connection, uint8_t type, uint8_t flags, uint32_t id,
                      size_t n)
{
    uint8_t *at = buffer_room(&connection->out, FRAME_HEADER + n);
    put32(at, (uint32_t)n << 8 | type);
    at[4] = flags;
    put32(at + 5, id);
    connection->out.n += FRAME_HEADER;
}

static void put_window_update(struct h2_connection *connection, uint32_t id, uint32_t more)
{
    uint8_t body[4];
    put32(body, more);
    put_frame(connection, WINDOW_UPDATE, 0, id, sizeof body);
    buffer_add(&connection->out, body, sizeof body);
}

static void put_setting(uint8_t *at, uint16_t name, uint32_t value)
{
    at[0] = (uint8_t)(name >> 8);
    at[1] = (uint8_t)name;
    put32(at + 2, value);
}

static void put_preface(struct h2_connection *connection, uint32_t max_frame)
{
    static const char magic[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    uint8_t settings[18];
    put_setting(settings, 2, 0); /* no pushes */
    put_setting(settings + 6, INITIAL_WINDOW, WINDOW_MAX);
    put_setting(settings + 12, MAX_FRAME_SIZE, max_frame);
    buffer_add(&connection->out, magic, sizeof magic - 1);
    put_frame(connection, SETTINGS, 0, 0, sizeof settings);
    buffer_add(&connection->out, settings, sizeof settings);
    put_window_update(connection, 0, WINDOW_MAX - FIRST_WINDOW);
}

/* A header that the server puts into its table. `how`: its name's place there, or 0x40 and a name.
 */
static void put_literal(struct h2_connection *connection, struct buffer *block, uint8_t how,
                        const char *name, const char *value)
{
    uint8_t n[2] = {(uint8_t)strlen(name), (uint8_t)strlen(value)};
    buffer_add(block, &how, 1);
    if (n[0]) {
        buffer_add(block, &n[0], 1);
        buffer_add(block, name, n[0]);
    }
    buffer_add(block, &n[1], 1);
    buffer_add(block, value, n[1]);
    connection->inserted++;
}

/* The headers of a call, each a byte: those every call has were inserted as numbers 1 to 4. */
static void make_again(struct h2_connection *connection, uint32_t path_number)
{
    const uint32_t numbers[] = {path_number, 1, 2, 3, 4};
    uint8_t block[7] = {0x83, 0x86}; /* :method POST, :scheme http */
    for (size_t i = 0; i < 5; i++) {
        uint32_t index = FIRST_OF_DYNAMIC + connection->inserted - 1 - numbers[i];
        block[2 + i] = (uint8_t)(0x80 | index);
    }
    connection->again.n = 0;
    buffer_add(&connection->again, block, sizeof block);
}

/* The header block of a call: with the first one on a path the server learns it. */
static void make_block(struct h2_connection *connection, const char *path, struct buffer *block)
{
    uint32_t path_number = connection->inserted;
    block->n = 0;
    buffer_add(block, "\x83\x86", 2);
    put_literal(connection, block, 0x44, "", path);
    if (path_number == 0) {
        put_literal(connection, block, 0x41, "", connection->authority);
        put_literal(connection, block, 0x40, "te", "trailers");
        put_literal(connection, block, 0x5f, "", "application/grpc");
        put_literal(connection, block, 0x7a, "", "payloadstore-load");
        make_again(connection, path_number);
    } else {
        make_again(connection, path_number);
        buffer_add(block, connection->again.data + 3, 4);
    }
    connection->path = path;
}

void h2_open(struct h2_stream *stream, struct h2_connection *connection, const char *path,
             size_t room)
{
    if (room > stream->room) {
        stream->pieces = load_alloc(stream->pieces, room * sizeof *stream->pieces);
        stream->room = room;
    }
    *stream = (struct h2_stream){.connection = connection,
                                 .window = connection->first_window,
                                 .pieces = stream->pieces,
                                 .room = stream->room,
                                 .in = {.data = stream->in.data, .room = stream->in.room},
                                 .status = -1};
    /* An id in use by a call much older is stepped over, as HTTP/2 lets a client do. */
    while (connection->streams[connection->next_id >> 1 & connection->mask]) {
        connection->next_id += 2;
    }
    stream->id = connection->next_id;
    connection->next_id += 2;
    if (stream->id > WINDOW_MAX - 2 * PLACES_MIN) {
        break_off(connection, "no stream ids are left");
    }
    connection->streams[stream->id >> 1 & connection->mask] = stream;

    struct buffer first = {0}, *block = &connection->again;
    if (connection->path != path) {
        block = &first;
        make_block(connection, path, block);
    }
    put_frame(connection, HEADERS, END_HEADERS, stream->id, block->n);
    buffer_add(&connection->out, block->data, block->n);
    buffer_fini(&first);
}

static void unblock(struct h2_connection *connection)
{
    struct h2_stream *stream = connection->blocked;
    stream->blocked = false;
    connection->blocked = stream->next_blocked;
    if (!connection->blocked) {
        connection->blocked_end = &connection->blocked;
    }
}

static void block(struct h2_stream *stream)
{
    struct h2_connection *connection = stream->connection;
    if (!stream->blocked) {
        stream->blocked = true;
        stream->next_blocked = NULL;
        *connection->blocked_end = stream;
        connection->blocked_end = &stream->next_blocked;
    }
}

/* Frames of the first piece as far as the windows go. True where it has gone. */
static bool put_piece(struct h2_stream *stream)
{
    struct h2_connection *connection = stream->connection;
    const struct h2_piece *piece = &stream->pieces[stream->first];
    while (stream->sent < piece->n) {
        size_t n = piece->n - stream->sent;
        int64_t window = stream->window < connection->window ? stream->window : connection->window;
        if (window <= 0) {
            return false;
        }
        n = n < connection->max_frame ? n : connection->max_frame;
        n = n < (size_t)window ? n : (size_t)window;
        bool last = stream->half_closed && stream->n == 1 && stream->sent + n == piece->n;
        put_frame(connection, DATA, last ? END_STREAM : 0, stream->id, n);
        buffer_add(&connection->out, piece->data + stream->sent, n);
        stream->ended = last;
        stream->sent += n;
        stream->window -= (int64_t)n;
        connection->window -= (int64_t)n;
    }
    return true;
}

static void put_pieces(struct h2_stream *stream)
{
    while (stream->n) {
        if (!put_piece(stream)) {
            block(stream);
            return;
        }
        stream->first = (stream->first + 1) % stream->room;
        stream->n--;
        stream->sent = 0;
    }
}

/* A window has been opened. Those that still find theirs shut wait on, behind those that wait. */
static void put_blocked(struct h2_connection *connection)
{
    struct h2_stream *last = NULL;
    for (struct h2_stream *s = connection->blocked; s; s = s->next_blocked) {
        last = s;
    }
    while (connection->blocked && connection->window > 0) {
        struct h2_stream *stream = connection->blocked;
        unblock(connection);
        put_pieces(stream);
        if (stream == last) {
            break;
        }
    }
}

void h2_send(struct h2_stream *stream, const uint8_t *message, size_t n, bool last)
{
    size_t at = (stream->first + stream->n++) % stream->room;
    stream->pieces[at] = (struct h2_piece){message, n};
    stream->half_closed = last;
    if (!stream->blocked) {
        put_pieces(stream);
    }
}

void h2_end(struct h2_stream *stream)
{
    stream->half_closed = true;
    if (stream->n == 0 && !stream->ended) {
        stream->ended = true;
        put_frame(stream->connection, DATA, END_STREAM, stream->id, 0);
    }
}

void h2_flush(struct h2_connection *connection)
{
    struct buffer *out = &connection->out;
    size_t sent = 0;
    connection->wants_out = false;
    while (sent < out->n && !connection->broken[0]) {
        ssize_t n = send(connection->fd, out->data + sent, out->n - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            connection->wants_out = true;
            break;
        }
        if (n < 0 && errno != EINTR) {
            break_off(connection, "the connection broke: %s", strerror(errno));
        }
        sent += n > 0 ? (size_t)n : 0;
    }
    buffer_drop(out, sent);
}

/* -- receiving --------------------------------------------------------------------------------- */

static struct h2_stream *find(const struct h2_connection *connection, uint32_t id)
{
    struct h2_stream *stream = connection->streams[id >> 1 & connection->mask];
    return stream && stream->id == id ? stream : NULL;
}

static void take_off_blocked(struct h2_stream *stream)
{
    struct h2_connection *connection = stream->connection;
    struct h2_stream **at = &connection->blocked;
    while (*at != stream) {
        at = &(*at)->next_blocked;
    }
    *at = stream->next_blocked;
    if (!*at) {
        connection->blocked_end = at;
    }
    stream->blocked = false;
}

static void close_stream(struct h2_stream *stream, int status, const char *about)
{
    struct h2_connection *connection = stream->connection;
    if (stream->blocked) {
        take_off_blocked(stream);
    }
    if (!stream->ended) { /* the server was quicker: it shall not wait for the rest */
        put_frame(connection, RST_STREAM, 0, stream->id, 4);
        buffer_add(&connection->out, "\0\0\0\x8", 4); /* CANCEL */
    }
    connection->streams[stream->id >> 1 & connection->mask] = NULL;
    stream->id = 0;
    connection->events->closed(connection->events->user, stream, status, about);
}

/* Whole messages at `data`: how many bytes they take, or SIZE_MAX where one is compressed. */
static size_t take_messages(struct h2_stream *stream, const uint8_t *data, size_t n)
{
    const struct h2_events *events = stream->connection->events;
    size_t taken = 0;
    while (n - taken >= MESSAGE_PREFIX) {
        size_t length = get32(data + taken + 1);
        if (data[taken] != 0) {
            return SIZE_MAX;
        }
        if (n - taken - MESSAGE_PREFIX < length) {
            break;
        }
        events->message(events->user, stream, data + taken + MESSAGE_PREFIX, length);
        taken += MESSAGE_PREFIX + length;
    }
    return taken;
}

static void take_data(struct h2_stream *stream, const uint8_t *data, size_t n)
{
    struct buffer *in = &stream->in;
    size_t taken;
    if (in->n == 0) {
        taken = take_messages(stream, data, n);
        if (taken < n) {
            buffer_add(in, data + taken, n - taken);
        }
    } else {
        buffer_add(in, data, n);
        taken = take_messages(stream, in->data, in->n);
        if (taken != SIZE_MAX) {
            buffer_drop(in, taken);
        }
    }
    if (taken == SIZE_MAX) {
        break_off(stream->connection, "a compressed message, which was not asked for");
    }
}

static void acknowledge(struct h2_connection *connection, uint64_t *unacknowledged, uint32_t id,
                        size_t n)
{
    *unacknowledged += n;
    if (*unacknowledged > WINDOW_LOW) {
        put_window_update(connection, id, (uint32_t)*unacknowledged);
        *unacknowledged = 0;
    }
}

/* What stands between padding. False where there is more padding than frame. */
static bool strip_padding(struct frame *frame)
{
    if (frame->flags & PADDED) {
        if (frame->n == 0 || frame->data[0] >= frame->n) {
            return false;
        }
        frame->n -= 1u + frame->data[0];
        frame->data++;
    }
    return true;
}

static void on_data(struct h2_connection *connection, struct frame *frame)
{
    struct h2_stream *stream = find(connection, frame->id);
    acknowledge(connection, &connection->unacknowledged, 0, frame->n);
    if (!stream) {
        return;
    }
    bool last = frame->flags & END_STREAM;
    if (!last) {
        acknowledge(connection, &stream->unacknowledged, stream->id, frame->n);
    }
    if (!strip_padding(frame)) {
        break_off(connection, "a frame of padding alone");
        return;
    }
    take_data(stream, frame->data, frame->n);
    if (last && !connection->broken[0]) {
        close_stream(stream, -1, "the answer ends without a status");
    }
}

static bool is(const uint8_t *bytes, size_t n, const char *text)
{
    return n == strlen(text) && memcmp(bytes, text, n) == 0;
}

static void on_header(struct h2_connection *connection, struct h2_stream *stream,
                      const nghttp2_nv *nv)
{
    if (!stream) {
        return;
    }
    if (is(nv->name, nv->namelen, ":status")) {
        stream->answered = true;
        if (!is(nv->value, nv->valuelen, "200")) {
            break_off(connection, "HTTP status %.*s", (int)nv->valuelen, (const char *)nv->value);
        }
    } else if (is(nv->name, nv->namelen, "grpc-status")) {
        stream->status = 0;
        for (size_t i = 0; i < nv->valuelen && i < 4; i++) {
            stream->status = 10 * stream->status + (nv->value[i] - '0');
        }
    } else if (is(nv->name, nv->namelen, "grpc-message")) {
        snprintf(stream->about, sizeof stream->about, "%.*s", (int)nv->valuelen,
                 (const char *)nv->value);
    }
}

/* A whole block; decoded even where nobody waits for it, as later ones build upon it. */
static void on_block(struct h2_connection *connection, uint32_t id, const uint8_t *data, size_t n,
                     bool last)
{
    struct h2_stream *stream = find(connection, id);
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t used = nghttp2_hd_inflate_hd2(connection->inflater, &nv, &flags, data, n, 1);
        if (used < 0) {
            break_off(connection, "headers: %s", nghttp2_strerror((int)used));
            return;
        }
        data += used;
        n -= (size_t)used;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            on_header(connection, stream, &nv);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) {
            nghttp2_hd_inflate_end_headers(connection->inflater);
            break;
        }
        if (!(flags & NGHTTP2_HD_INFLATE_EMIT) && n == 0) {
            break;
        }
    }
    if (stream && last && !connection->broken[0]) {
        const char *cut = stream->in.n ? "the answer ends within a message" : stream->about;
        close_stream(stream, stream->in.n ? -1 : stream->status, cut);
    }
}

static void on_headers(struct h2_connection *connection, struct frame *frame)
{
    if (!strip_padding(frame) || (frame->flags & HAS_PRIORITY && frame->n < 5)) {
        break_off(connection, "a frame of padding alone");
        return;
    }
    if (frame->flags & HAS_PRIORITY) {
        frame->data += 5;
        frame->n -= 5;
    }
    bool last = frame->flags & END_STREAM;
    if (frame->flags & END_HEADERS) {
        on_block(connection, frame->id, frame->data, frame->n, last);
        return;
    }
    connection->block.n = 0;
    buffer_add(&connection->block, frame->data, frame->n);
    connection->block_stream = frame->id;
    connection->block_ends = last;
}

static void on_continuation(struct h2_connection *connection, const struct frame *frame)
{
    buffer_add(&connection->block, frame->data, frame->n);
    if (frame->flags & END_HEADERS) {
        on_block(connection, connection->block_stream, connection->block.data, connection->block.n,
                 connection->block_ends);
        connection->block_stream = 0;
    }
}

static void set_first_window(struct h2_connection *connection, uint32_t value)
{
    int64_t more = (int64_t)value - connection->first_window;
    connection->first_window = value;
    for (uint32_t i = 0; i <= connection->mask; i++) {
        if (connection->streams[i]) {
            connection->streams[i]->window += more;
        }
    }
    put_blocked(connection);
}

static void on_settings(struct h2_connection *connection, const struct frame *frame)
{
    if (frame->flags & ACK) {
        return;
    }
    /* Before what they allow: until then the server holds us to the old ones. */
    put_frame(connection, SETTINGS, ACK, 0, 0);
    for (size_t i = 0; i + 6 <= frame->n; i += 6) {
        uint32_t value = get32(frame->data + i + 2);
        switch (frame->data[i] << 8 | frame->data[i + 1]) {
        case HEADER_TABLE_SIZE:
            if (value < DYNAMIC_MIN) {
                break_off(connection, "the server keeps only %u bytes of headers", value);
            }
            break;
        case MAX_CONCURRENT:
            connection->max_streams = value;
            break;
        case INITIAL_WINDOW:
            set_first_window(connection, value);
            break;
        case MAX_FRAME_SIZE:
            connection->max_frame = value;
            break;
        default:
            break;
        }
    }
    connection->settled = true;
}

static void on_window_update(struct h2_connection *connection, const struct frame *frame)
{
    if (frame->n != 4) {
        break_off(connection, "a window update of %zu bytes", frame->n);
        return;
    }
    uint32_t more = get32(frame->data) & WINDOW_MAX;
    struct h2_stream *stream = find(connection, frame->id);
    if (frame->id == 0) {
        connection->window += more;
        put_blocked(connection);
    } else if (stream) {
        stream->window += more;
        put_blocked(connection);
    }
}

static void on_reset(struct h2_connection *connection, const struct frame *frame)
{
    struct h2_stream *stream = find(connection, frame->id);
    if (stream && frame->n == 4) {
        stream->ended = true;
        snprintf(stream->about, sizeof stream->about, "the server reset the stream, error %u",
                 get32(frame->data));
        close_stream(stream, -1, stream->about);
    }
}

static void on_frame(struct h2_connection *connection, struct frame *frame)
{
    if (connection->block_stream && frame->type != CONTINUATION) {
        break_off(connection, "a frame amid headers");
        return;
    }
    switch (frame->type) {
    case DATA:
        on_data(connection, frame);
        break;
    case HEADERS:
        on_headers(connection, frame);
        break;
    case CONTINUATION:
        on_continuation(connection, frame);
        break;
    case RST_STREAM:
        on_reset(connection, frame);
        break;
    case SETTINGS:
        on_settings(connection, frame);
        break;
    case PING:
        if (!(frame->flags & ACK)) {
            put_frame(connection, PING, ACK, 0, frame->n);
            buffer_add(&connection->out, frame->data, frame->n);
        }
        break;
    case GOAWAY:
        break_off(connection, "the server sends us away: %.*s",
                  frame->n > 8 ? (int)(frame->n - 8) : 0, (const char *)frame->data + 8);
        break;
    case WINDOW_UPDATE:
        on_window_update(connection, frame);
        break;
    default:
        break;
    }
}

void h2_receive(struct h2_connection *connection)
{
    struct buffer *in = &connection->in;
    ssize_t got = recv(connection->fd, in->data + in->n, in->room - in->n, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        break_off(connection, "the server closed the connection%s%s", got ? ": " : "",
                  got ? strerror(errno) : "");
        return;
    }
    in->n += (size_t)got;
    size_t at = 0;
    while (in->n - at >= FRAME_HEADER && !connection->broken[0]) {
        const uint8_t *head = in->data + at;
        struct frame frame = {.type = head[3],
                              .flags = head[4],
                              .id = get32(head + 5) & WINDOW_MAX,
                              .data = head + FRAME_HEADER,
                              .n = get32(head) >> 8};
        if (frame.n > in->room - FRAME_HEADER) {
            break_off(connection, "a frame of %zu bytes", frame.n);
        } else if (in->n - at - FRAME_HEADER < frame.n) {
            break;
        } else {
            at += FRAME_HEADER + frame.n;
            on_frame(connection, &frame);
        }
    }
    buffer_drop(in, at);
}

/* -- connections ------------------------------------------------------------------------------- */

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int connect_tcp(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int fd = -1, yes = 1;
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        return -1;
    }
    for (struct addrinfo *one = found; one && fd < 0; one = one->ai_next) {
        fd = socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, one->ai_addr, one->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    }
    return fd;
}

static int connect_to(const char *address)
{
    if (strncmp(address, "unix:", 5) == 0) {
        return connect_unix(address + 5);
    }
    char host[128];
    snprintf(host, sizeof host, "%s", address);
    char *colon = strrchr(host, ':');
    if (!colon) {
        return -1;
    }
    *colon = '\0';
    return connect_tcp(host, colon + 1);
}

void h2_connect(struct h2_connection *connection, const char *address, uint32_t streams,
                uint32_t max_frame, const struct h2_events *events)
{
    *connection = (struct h2_connection){.fd = connect_to(address),
                                         .max_streams = UINT32_MAX,
                                         .max_frame = DEFAULT_FRAME,
                                         .window = FIRST_WINDOW,
                                         .first_window = FIRST_WINDOW,
                                         .next_id = 1,
                                         .mask = PLACES_MIN,
                                         .events = events};
    if (connection->fd < 0) {
        fprintf(stderr, "load: %s: %s\n", address, strerror(errno));
        exit(2);
    }
    bool local = strncmp(address, "unix:", 5) == 0;
    snprintf(connection->authority, sizeof connection->authority, "%s",
             local ? "localhost" : address);
    connection->blocked_end = &connection->blocked;
    while (connection->mask < 4 * streams) {
        connection->mask *= 2;
    }
    size_t places = connection->mask--;
    connection->streams = calloc(places, sizeof(struct h2_stream *));
    if (!connection->streams || nghttp2_hd_inflate_new(&connection->inflater) != 0) {
        load_fail("out of memory");
    }
    buffer_room(&connection->in, RECEIVE_BYTES + FRAME_HEADER + max_frame);
    put_preface(connection, max_frame);
    h2_flush(connection);
    while (!connection->settled && !connection->broken[0]) {
        h2_receive(connection);
    }
    if (connection->broken[0]) {
        load_fail(connection->broken);
    }
    fcntl(connection->fd, F_SETFL, fcntl(connection->fd, F_GETFL) | O_NONBLOCK);
}

void h2_stream_fini(struct h2_stream *stream)
{
    free(stream->pieces);
    buffer_fini(&stream->in);
}

void h2_fini(struct h2_connection *connection)
{
    close(connection->fd);
    buffer_fini(&connection->in);
    buffer_fini(&connection->out);
    buffer_fini(&connection->block);
    buffer_fini(&connection->again);
    free((void *)connection->streams);
    nghttp2_hd_inflate_del(connection->inflater);
}
