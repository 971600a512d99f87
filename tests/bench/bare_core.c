/*
 * What the server is measured against: Append and Read of the contract on gRPC core's C API alone.
 *
 * No shim, no protobuf-c: registered methods, requests parsed and answers encoded by hand, for an
 * append one checksum and one gathered write as the store makes it, for a read one pread and one
 * checksum. As many queues, pollers and accepts as payloadstored has by default, and those of its
 * channel arguments that a call is dearer or cheaper by; core's compression is left out. Store,
 * durability and epoch of a request are stepped over: there is one file.
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
#define PREFIX       4  /* bytes before a payload in the file */
#define HEADER_MAX   6  /* bytes before it in an answer: a tag and a length */
#define REF_MAX      32 /* bytes of an encoded ref, and what is around it */

enum { APPEND, READ, METHODS };

struct ref {
    uint64_t offset;
    uint32_t file_id, length, crc32c;
};

struct call {
    int method;
    bool answering; /* else waiting to be accepted */
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

/* AppendResponse: a ref in field 1. */
static grpc_slice encode_ref(const struct ref *ref)
{
    uint8_t body[REF_MAX];
    uint8_t *end = put_number(body, 1, ref->file_id);
    end = put_number(end, 2, ref->offset);
    end = put_number(end, 3, ref->length);
    *end++ = 4 << 3 | 5;
    for (int shift = 0; shift < 32; shift += 8) {
        *end++ = (uint8_t)(ref->crc32c >> shift);
    }
    size_t n = (size_t)(end - body);
    grpc_slice slice = grpc_slice_malloc(2 + n);
    uint8_t *out = GRPC_SLICE_START_PTR(slice);
    out[0] = 1 << 3 | 2;
    out[1] = (uint8_t)n;
    memcpy(out + 2, body, n);
    return slice;
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

static bool append(struct cursor in, grpc_slice *answer)
{
    struct iovec iov[2];
    struct field field;
    const uint8_t *payload = NULL;
    struct ref ref = {0};
    while (get_field(&in, &field)) {
        if (field.number == 2) {
            payload = field.data;
            ref.length = (uint32_t)field.value;
        }
    }
    uint32_t prefix = ref.length; /* little-endian, as this machine */
    ref.crc32c = crc32c(payload, ref.length);
    iov[0] = (struct iovec){.iov_base = &prefix, .iov_len = PREFIX};
    iov[1] = (struct iovec){.iov_base = (void *)payload, .iov_len = ref.length};
    ref.offset = atomic_fetch_add(&file_end, PREFIX + ref.length);
    *answer = encode_ref(&ref);
    return pwritev(file, iov, 2, (off_t)ref.offset) == (ssize_t)(PREFIX + ref.length);
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
    ssize_t n = pread(file, payload - PREFIX, PREFIX + (size_t)ref.length, (off_t)ref.offset);
    uint32_t prefix;
    memcpy(&prefix, payload - PREFIX, PREFIX);
    bool good = n == (ssize_t)(PREFIX + ref.length) && prefix == ref.length &&
                crc32c(payload, ref.length) == ref.crc32c;
    uint8_t header[HEADER_MAX] = {1 << 3 | 2};
    size_t room = (size_t)(put_varint(header + 1, ref.length) - header);
    memcpy(payload - room, header, room);
    *answer = grpc_slice_sub(slice, HEADER_MAX - room, GRPC_SLICE_LENGTH(slice));
    grpc_slice_unref(slice);
    return good;
}

/* -- calls ------------------------------------------------------------------------------------- */

static void accept_next(struct call *call)
{
    call->answering = false;
    call->request = NULL;
    grpc_metadata_array_init(&call->metadata);
    must(grpc_server_request_registered_call(server, methods[call->method], &call->core,
                                             &call->deadline, &call->metadata, &call->request,
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
    *ok = method == APPEND ? append(in, &answer) : read_payload(in, &answer);
    grpc_byte_buffer *response = grpc_raw_byte_buffer_create(&answer, 1);
    grpc_slice_unref(answer);
    grpc_slice_unref(slice);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(request);
    return response;
}

static void answer(struct call *call)
{
    grpc_op ops[4] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                      {.op = GRPC_OP_SEND_MESSAGE},
                      {.op = GRPC_OP_SEND_STATUS_FROM_SERVER},
                      {.op = GRPC_OP_RECV_CLOSE_ON_SERVER}};
    bool ok;
    call->answering = true;
    call->response = respond(call->method, call->request, &ok);
    ops[1].data.send_message.send_message = call->response;
    ops[2].data.send_status_from_server.status = ok ? GRPC_STATUS_OK : GRPC_STATUS_DATA_LOSS;
    ops[3].data.recv_close_on_server.cancelled = &call->cancelled;
    must(grpc_call_start_batch(call->core, ops, 4, call, NULL) == GRPC_CALL_OK,
         "grpc_call_start_batch");
}

static void end(struct call *call)
{
    grpc_byte_buffer_destroy(call->response);
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_unref(call->core);
    accept_next(call);
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
        if (call == NULL) { /* the server's shutdown */
            continue;
        }
        if (call->answering) {
            end(call);
        } else if (event.success != 0) {
            answer(call);
        } else {
            grpc_metadata_array_destroy(&call->metadata);
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
    const char *const paths[METHODS] = {"/payloadstore.v1.PayloadStore/Append",
                                        "/payloadstore.v1.PayloadStore/Read"};
    for (int i = 0; i < METHODS; i++) {
        methods[i] = grpc_server_register_method(server, paths[i], NULL,
                                                 GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
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
