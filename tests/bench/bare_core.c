/*
 * What the server is measured against: Append and Read of the contract, and both streams, on gRPC
 * core's C API alone.
 *
 * No shim, no protobuf-c: registered methods, requests parsed and answers encoded by hand, for an
 * append one checksum and one gathered write as the store makes it, for a read one pread and one
 * checksum. A batch of a stream is one gathered write, or one message of what its reads found; each
 * answer is sent together with the request for the next batch. As many queues, pollers and accepts
 * as payloadstored has by default, and those of its channel arguments that a call is dearer or
 * cheaper by; core's compression is left out. Store, durability and epoch of a request are stepped
 * over: there is one file.
 *
 *   bare_core --data-dir DIRECTORY --listen ADDRESS
 *
 * Serves until SIGTERM.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <isa-l/crc.h>

#define QUEUES       2
#define ACCEPTS      16 /* of each method on each queue */
#define MESSAGE_MAX  ((64 << 20) + 1024)
#define MEMORY_QUOTA ((size_t)512 << 20)
#define KEEPALIVE_MS 20000
#define PREFIX       4   /* bytes before a payload in the file */
#define HEADER_MAX   6   /* bytes before it in an answer: a tag and a length */
#define REF_MAX      32  /* bytes of an encoded ref, and what is around it */
#define BATCH_MAX    512 /* payloads of a batch: two parts each of a gathered write */

enum { APPEND, READ, APPEND_STREAM, READ_STREAM, METHODS };

struct ref {
    uint64_t offset;
    uint32_t file_id, length, crc32c;
};

struct call {
    int method;
    enum { ACCEPTING, STREAMING, ANSWERING } state;
    grpc_completion_queue *queue;
    grpc_call *core;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *request;
    grpc_byte_buffer *response;
    int cancelled;
};

static grpc_server *server;
static void *methods[METHODS];
static int file;
static atomic_uint_fast64_t file_end;
static atomic_bool stopping;

static void must(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

/* -- the wire ---------------------------------------------------------------------------------- */

struct cursor {
    const uint8_t *at, *end;
};

struct field {
    uint32_t number;
    uint64_t value;      /* of a number, or the length of bytes */
    const uint8_t *data; /* of bytes */
};

static bool get_varint(struct cursor *in, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static bool get_fixed32(struct cursor *in, uint64_t *value)
{
    if (in->end - in->at < 4) {
        return false;
    }
    *value = in->at[0] | (uint64_t)in->at[1] << 8 | (uint64_t)in->at[2] << 16 |
             (uint64_t)in->at[3] << 24;
    in->at += 4;
    return true;
}

/* False at the end, and where the message is malformed or holds what the contract does not. */
static bool get_field(struct cursor *in, struct field *field)
{
    uint64_t tag;
    if (!get_varint(in, &tag)) {
        return false;
    }
    field->number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case 0:
        return get_varint(in, &field->value);
    case 2:
        if (!get_varint(in, &field->value) || field->value > (uint64_t)(in->end - in->at)) {
            return false;
        }
        field->data = in->at;
        in->at += field->value;
        return true;
    case 5:
        return get_fixed32(in, &field->value);
    default:
        return false;
    }
}

static uint8_t *put_varint(uint8_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) {
        *out++ = (uint8_t)(value | 0x80);
    }
    *out++ = (uint8_t)value;
    return out;
}

static uint8_t *put_number(uint8_t *out, unsigned number, uint64_t value)
{
    if (value == 0) {
        return out;
    }
    *out++ = (uint8_t)(number << 3);
    return put_varint(out, value);
}

/* A ref in field 1, as it is in AppendResponse and many times in AppendStreamResponse. */
static uint8_t *put_ref(uint8_t *out, const struct ref *ref)
{
    uint8_t *body = out + 2;
    uint8_t *end = put_number(body, 1, ref->file_id);
    end = put_number(end, 2, ref->offset);
    end = put_number(end, 3, ref->length);
    *end++ = 4 << 3 | 5;
    for (int shift = 0; shift < 32; shift += 8) {
        *end++ = (uint8_t)(ref->crc32c >> shift);
    }
    out[0] = 1 << 3 | 2;
    out[1] = (uint8_t)(end - body);
    return end;
}

static struct ref parse_ref(struct cursor in)
{
    struct ref ref = {0};
    struct field field;
    while (get_field(&in, &field)) {
        switch (field.number) {
        case 1:
            ref.file_id = (uint32_t)field.value;
            break;
        case 2:
            ref.offset = field.value;
            break;
        case 3:
            ref.length = (uint32_t)field.value;
            break;
        case 4:
            ref.crc32c = (uint32_t)field.value;
            break;
        }
    }
    return ref;
}

/* -- the file ---------------------------------------------------------------------------------- */

static uint32_t crc32c(const uint8_t *data, size_t length)
{
    return ~crc32_iscsi((unsigned char *)data, (int)length, ~0u);
}

/* Requests of Append, and of AppendStream, have payloads in field 2. */
static bool append(struct cursor in, grpc_slice *answer)
{
    struct iovec iov[2 * BATCH_MAX];
    struct ref refs[BATCH_MAX];
    uint8_t encoded[BATCH_MAX * REF_MAX], *end = encoded;
    struct field field;
    uint64_t bytes = 0;
    size_t n = 0;
    while (get_field(&in, &field) && n < BATCH_MAX) {
        if (field.number == 2) {
            struct ref *ref = &refs[n];
            *ref = (struct ref){.offset = bytes, .length = (uint32_t)field.value};
            ref->crc32c = crc32c(field.data, field.value);
            /* Its prefix is the length, little-endian as this machine. */
            iov[2 * n] = (struct iovec){.iov_base = &ref->length, .iov_len = PREFIX};
            iov[2 * n + 1] = (struct iovec){.iov_base = (void *)field.data, .iov_len = field.value};
            bytes += PREFIX + field.value;
            n++;
        }
    }
    uint64_t offset = atomic_fetch_add(&file_end, bytes);
    for (size_t i = 0; i < n; i++) {
        refs[i].offset += offset;
        end = put_ref(end, &refs[i]);
    }
    *answer = grpc_slice_from_copied_buffer((const char *)encoded, (size_t)(end - encoded));
    return pwritev(file, iov, (int)(2 * n), (off_t)offset) == (ssize_t)bytes;
}

/* One record into memory that has room for its prefix before the payload. */
static bool read_record(const struct ref *ref, uint8_t *payload)
{
    ssize_t n = pread(file, payload - PREFIX, PREFIX + (size_t)ref->length, (off_t)ref->offset);
    uint32_t prefix;
    memcpy(&prefix, payload - PREFIX, PREFIX);
    return n == (ssize_t)(PREFIX + ref->length) && prefix == ref->length &&
           crc32c(payload, ref->length) == ref->crc32c;
}

/* ReadResponse: the payload in field 1, whose header takes the place of the record's prefix. */
static bool read_payload(struct cursor in, grpc_slice *answer)
{
    struct field field;
    struct ref ref = {0};
    while (get_field(&in, &field)) {
        if (field.number == 2) {
            ref = parse_ref((struct cursor){field.data, field.data + field.value});
        }
    }
    grpc_slice slice = grpc_slice_malloc(HEADER_MAX + (size_t)ref.length);
    uint8_t *payload = GRPC_SLICE_START_PTR(slice) + HEADER_MAX;
    bool good = read_record(&ref, payload);
    uint8_t header[HEADER_MAX] = {1 << 3 | 2};
    size_t room = (size_t)(put_varint(header + 1, ref.length) - header);
    memcpy(payload - room, header, room);
    *answer = grpc_slice_sub(slice, HEADER_MAX - room, GRPC_SLICE_LENGTH(slice));
    grpc_slice_unref(slice);
    return good;
}

static size_t varint_bytes(uint64_t value)
{
    uint8_t bytes[10];
    return (size_t)(put_varint(bytes, value) - bytes);
}

/* A result of ReadStreamResponse: in field 1 a message with the payload in its field 1. */
static size_t result_bytes(const struct ref *ref)
{
    size_t inner = 1 + varint_bytes(ref->length) + (size_t)ref->length;
    return 1 + varint_bytes(inner) + inner;
}

/* Its headers are written last: they take four bytes or more, the place of the record's prefix. */
static bool read_result(const struct ref *ref, uint8_t *out)
{
    size_t n = result_bytes(ref), inner = 1 + varint_bytes(ref->length) + (size_t)ref->length;
    bool good = read_record(ref, out + n - ref->length);
    *out++ = 1 << 3 | 2;
    out = put_varint(out, inner);
    *out++ = 1 << 3 | 2;
    put_varint(out, ref->length);
    return good;
}

static bool read_batch(struct cursor in, grpc_slice *answer)
{
    struct ref refs[BATCH_MAX];
    struct field field;
    size_t bytes = 0;
    bool good = true;
    int n = 0;
    while (get_field(&in, &field) && n < BATCH_MAX) {
        if (field.number == 2) {
            refs[n] = parse_ref((struct cursor){field.data, field.data + field.value});
            bytes += result_bytes(&refs[n++]);
        }
    }
    *answer = grpc_slice_malloc(bytes);
    uint8_t *out = GRPC_SLICE_START_PTR(*answer);
    for (int i = 0; i < n; i++) {
        good = read_result(&refs[i], out) && good;
        out += result_bytes(&refs[i]);
    }
    return good;
}

/* -- calls ------------------------------------------------------------------------------------- */

static bool is_stream(int method)
{
    return method == APPEND_STREAM || method == READ_STREAM;
}

static void accept_next(struct call *call)
{
    call->state = ACCEPTING;
    call->request = call->response = NULL;
    grpc_metadata_array_init(&call->metadata);
    must(grpc_server_request_registered_call(server, methods[call->method], &call->core,
                                             &call->deadline, &call->metadata,
                                             is_stream(call->method) ? NULL : &call->request,
                                             call->queue, call->queue, call) == GRPC_CALL_OK,
         "grpc_server_request_registered_call");
}

static grpc_byte_buffer *respond(int method, grpc_byte_buffer *request, bool *ok)
{
    grpc_byte_buffer_reader reader;
    grpc_slice answer;
    must(request != NULL && grpc_byte_buffer_reader_init(&reader, request), "a request");
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    struct cursor in = {GRPC_SLICE_START_PTR(slice), GRPC_SLICE_END_PTR(slice)};
    switch (method) {
    case READ:
        *ok = read_payload(in, &answer);
        break;
    case READ_STREAM:
        *ok = read_batch(in, &answer);
        break;
    default:
        *ok = append(in, &answer);
    }
    grpc_byte_buffer *response = grpc_raw_byte_buffer_create(&answer, 1);
    grpc_slice_unref(answer);
    grpc_slice_unref(slice);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(request);
    return response;
}

static void start(struct call *call, int state, const grpc_op *ops, size_t n)
{
    call->state = state;
    must(grpc_call_start_batch(call->core, ops, n, call, NULL) == GRPC_CALL_OK,
         "grpc_call_start_batch");
}

static void answer(struct call *call)
{
    grpc_op ops[4] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                      {.op = GRPC_OP_SEND_MESSAGE},
                      {.op = GRPC_OP_SEND_STATUS_FROM_SERVER},
                      {.op = GRPC_OP_RECV_CLOSE_ON_SERVER}};
    bool ok;
    call->response = respond(call->method, call->request, &ok);
    ops[1].data.send_message.send_message = call->response;
    ops[2].data.send_status_from_server.status = ok ? GRPC_STATUS_OK : GRPC_STATUS_DATA_LOSS;
    ops[3].data.recv_close_on_server.cancelled = &call->cancelled;
    start(call, ANSWERING, ops, 4);
}

static void end(struct call *call)
{
    grpc_byte_buffer_destroy(call->response);
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_unref(call->core);
    if (!atomic_load(&stopping)) {
        accept_next(call);
    }
}

static void begin_stream(struct call *call)
{
    grpc_op ops[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_RECV_MESSAGE}};
    ops[1].data.recv_message.recv_message = &call->request;
    start(call, STREAMING, ops, 2);
}

static void end_stream(struct call *call, grpc_status_code status)
{
    grpc_op ops[2] = {{.op = GRPC_OP_SEND_STATUS_FROM_SERVER},
                      {.op = GRPC_OP_RECV_CLOSE_ON_SERVER}};
    ops[0].data.send_status_from_server.status = status;
    ops[1].data.recv_close_on_server.cancelled = &call->cancelled;
    start(call, ANSWERING, ops, 2);
}

/* The last answer is sent and the next batch is there, or the end. */
static void go_on(struct call *call, bool good)
{
    grpc_op ops[2] = {{.op = GRPC_OP_SEND_MESSAGE}, {.op = GRPC_OP_RECV_MESSAGE}};
    grpc_byte_buffer *request = call->request;
    grpc_byte_buffer_destroy(call->response);
    call->request = call->response = NULL;
    if (!good || request == NULL) {
        grpc_byte_buffer_destroy(request);
        if (atomic_load(&stopping)) { /* its queue may take no more */
            end(call);
        } else {
            end_stream(call, good ? GRPC_STATUS_OK : GRPC_STATUS_CANCELLED);
        }
        return;
    }
    call->response = respond(call->method, request, &good);
    if (!good) {
        end_stream(call, GRPC_STATUS_DATA_LOSS);
        return;
    }
    ops[0].data.send_message.send_message = call->response;
    ops[1].data.recv_message.recv_message = &call->request;
    start(call, STREAMING, ops, 2);
}

static void handle(struct call *call, bool success)
{
    if (call->state == ANSWERING) {
        end(call);
    } else if (call->state == STREAMING) {
        go_on(call, success);
    } else if (!success) {
        grpc_metadata_array_destroy(&call->metadata);
    } else if (is_stream(call->method)) {
        begin_stream(call);
    } else {
        answer(call);
    }
}

static void *poll_queue(void *arg)
{
    grpc_completion_queue *queue = arg;
    for (;;) {
        grpc_event event =
            grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        struct call *call = event.tag;
        if (event.type == GRPC_QUEUE_SHUTDOWN) {
            return NULL;
        }
        if (call != NULL) { /* else the server's shutdown */
            handle(call, event.success != 0);
        }
    }
}

/* -- the server -------------------------------------------------------------------------------- */

static grpc_arg int_arg(const char *key, int value)
{
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static void create_server(const char *address)
{
    grpc_resource_quota *quota = grpc_resource_quota_create("bare_core");
    grpc_resource_quota_resize(quota, MEMORY_QUOTA);
    grpc_arg args[] = {
        int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0),
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, MESSAGE_MAX),
        int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
        int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
        int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
        int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
        {.type = GRPC_ARG_POINTER,
         .key = (char *)GRPC_ARG_RESOURCE_QUOTA,
         .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}},
    };
    const grpc_channel_args list = {sizeof args / sizeof args[0], args};
    server = grpc_server_create(&list, NULL);
    grpc_resource_quota_unref(quota);
    const char *const paths[METHODS] = {
        "/payloadstore.v1.PayloadStore/Append", "/payloadstore.v1.PayloadStore/Read",
        "/payloadstore.v1.PayloadStore/AppendStream", "/payloadstore.v1.PayloadStore/ReadStream"};
    for (int i = 0; i < METHODS; i++) {
        methods[i] = grpc_server_register_method(
            server, paths[i], NULL,
            is_stream(i) ? GRPC_SRM_PAYLOAD_NONE : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    }
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    must(grpc_server_add_http2_port(server, address, credentials) != 0, address);
    grpc_server_credentials_release(credentials);
}

static void open_file(const char *directory)
{
    char path[4096];
    must(mkdir(directory, 0755) == 0, directory);
    snprintf(path, sizeof path, "%s/payload_0000.dat", directory);
    file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    must(file >= 0, path);
}

static void serve(sigset_t *until)
{
    static struct call calls[QUEUES][METHODS][ACCEPTS];
    grpc_completion_queue *queues[QUEUES];
    pthread_t threads[QUEUES];
    int number;
    for (int q = 0; q < QUEUES; q++) {
        queues[q] = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(server, queues[q], NULL);
    }
    grpc_server_start(server);
    for (int q = 0; q < QUEUES; q++) {
        for (int m = 0; m < METHODS; m++) {
            for (int i = 0; i < ACCEPTS; i++) {
                calls[q][m][i] = (struct call){.method = m, .queue = queues[q]};
                accept_next(&calls[q][m][i]);
            }
        }
        must(pthread_create(&threads[q], NULL, poll_queue, queues[q]) == 0, "pthread_create");
    }
    sigwait(until, &number);
    atomic_store(&stopping, true);
    grpc_server_shutdown_and_notify(server, queues[0], NULL);
    grpc_server_cancel_all_calls(server);
    for (int q = 0; q < QUEUES; q++) {
        grpc_completion_queue_shutdown(queues[q]);
    }
    for (int q = 0; q < QUEUES; q++) {
        pthread_join(threads[q], NULL);
    }
    grpc_server_destroy(server);
    for (int q = 0; q < QUEUES; q++) {
        grpc_completion_queue_destroy(queues[q]);
    }
}

int main(int argc, char **argv)
{
    sigset_t set;
    if (argc != 5 || strcmp(argv[1], "--data-dir") != 0 || strcmp(argv[3], "--listen") != 0) {
        fprintf(stderr, "usage: bare_core --data-dir DIRECTORY --listen ADDRESS\n");
        return 2;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before there are threads, which inherit it */
    grpc_init();
    open_file(argv[2]);
    create_server(argv[4]);
    serve(&set);
    grpc_shutdown();
    close(file);
    return 0;
}
