/*
 * The questions that tools ask the server: byte 0 even, one of reflection's, else one of health's;
 * the rest is the message. Each that is taken has one answer, which can be read, and reflection's
 * holds its question. The linker puts the functions here in front of the shim's.
 */
#include <grpc/byte_buffer.h>

#include "codec.h"
#include "core.h"
#include "fuzz.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "grpc-c/service.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "health.h"
#include "reflection.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest question;
typedef Grpc__Reflection__V1__ServerReflectionResponse answer;

static struct {
    const struct grpc_c_service *service;
    const void *handlers;
} added[4];
static unsigned n_added;

static const question *asked;
static grpc_c_call *const the_call = (grpc_c_call *)&asked; /* nobody looks into it */
static unsigned n_answers;
static unsigned n_reads;

int __wrap_grpc_c_server_add_service(grpc_c_server *server, const struct grpc_c_service *service,
                                     const void *handlers);
void __wrap_grpc_c_call_on_cancel(grpc_c_call *call,
                                  void (*on_cancel)(grpc_c_call *call, void *arg), void *arg);
void __wrap_grpc_c_call_read(grpc_c_call *call);
void __wrap_grpc_c_call_write(grpc_c_call *call, const ProtobufCMessage *message,
                              void (*on_written)(grpc_c_call *call, void *arg), void *arg);
void __wrap_grpc_c_call_reply(grpc_c_call *call, const ProtobufCMessage *response);
void __wrap_grpc_c_call_finish(grpc_c_call *call, const struct grpc_c_status *status);
void __wrap_grpc_c_call_fail(grpc_c_call *call, enum grpc_c_code code, const char *format, ...);

int __wrap_grpc_c_server_add_service(grpc_c_server *server, const struct grpc_c_service *service,
                                     const void *handlers)
{
    (void)server;
    insist(n_added < sizeof(added) / sizeof(added[0]));
    added[n_added].service = service;
    added[n_added].handlers = handlers;
    n_added++;
    return 0;
}

void __wrap_grpc_c_call_on_cancel(grpc_c_call *call,
                                  void (*on_cancel)(grpc_c_call *call, void *arg), void *arg)
{
    (void)arg;
    insist(call == the_call && on_cancel != NULL);
}

void __wrap_grpc_c_call_read(grpc_c_call *call)
{
    insist(call == the_call);
    n_reads++;
}

/* What the peer gets. */
static ProtobufCMessage *sent(const ProtobufCMessage *message)
{
    struct gci_error error;
    ProtobufCMessage *got = gci_unpack(message->descriptor, gci_pack(message), SIZE_MAX, &error);

    insist(got != NULL);
    n_answers++;
    return got;
}

static bool same(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
    size_t size = protobuf_c_message_get_packed_size(a);
    uint8_t *packed = malloc(2 * size + 1);
    bool equal = size == protobuf_c_message_get_packed_size(b);

    insist(packed != NULL);
    if (equal) {
        (void)protobuf_c_message_pack(a, packed);
        (void)protobuf_c_message_pack(b, packed + size);
        equal = memcmp(packed, packed + size, size) == 0;
    }
    free(packed);
    return equal;
}

static void check_file(const ProtobufCBinaryData *bytes)
{
    Google__Protobuf__FileDescriptorProto *file =
        google__protobuf__file_descriptor_proto__unpack(NULL, bytes->len, bytes->data);

    insist(file != NULL && file->name != NULL);
    google__protobuf__file_descriptor_proto__free_unpacked(file, NULL);
}

void __wrap_grpc_c_call_write(grpc_c_call *call, const ProtobufCMessage *message,
                              void (*on_written)(grpc_c_call *call, void *arg), void *arg)
{
    answer *got = (answer *)sent(message);

    insist(strcmp(got->valid_host, asked->host) == 0);
    insist(same(&got->original_request->base, &asked->base));
    if (got->message_response_case ==
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE) {
        insist(got->file_descriptor_response->n_file_descriptor_proto == 1);
        check_file(&got->file_descriptor_response->file_descriptor_proto[0]);
    }
    insist(got->message_response_case != 0);
    protobuf_c_message_free_unpacked(&got->base, NULL);
    on_written(call, arg);
}

void __wrap_grpc_c_call_reply(grpc_c_call *call, const ProtobufCMessage *response)
{
    insist(call == the_call);
    protobuf_c_message_free_unpacked(sent(response), NULL);
}

void __wrap_grpc_c_call_finish(grpc_c_call *call, const struct grpc_c_status *status)
{
    insist(call == the_call && status->code == GRPC_C_OK);
    n_answers++;
}

void __wrap_grpc_c_call_fail(grpc_c_call *call, enum grpc_c_code code, const char *format, ...)
{
    insist(call == the_call && code == GRPC_C_NOT_FOUND && format[0] != '\0');
    n_answers++;
}

/* -- the target ------------------------------------------------------------------------------- */

static ProtobufCMessage *message_of(const struct grpc_c_method *method, const struct input *in)
{
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)in->at, in->left);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    struct gci_error error;

    grpc_slice_unref(slice);
    return gci_unpack(method->request, buffer, (size_t)32 << 20, &error);
}

static void start(void)
{
    static const char *const services[] = {"a.First", "b.Second"};

    gci_library_hold();
    insist(psd_reflection_register(psd_reflection_create(services, 2), NULL) == 0);
    insist(psd_health_register(psd_health_create(), NULL) == 0 && n_added == 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    bool reflects = take_byte(&in) % 2 == 0;
    const struct grpc_c_method *method;
    const void *handlers;
    ProtobufCMessage *message;

    if (n_added == 0) {
        start();
    }
    method = &added[reflects ? 0 : 2].service->methods[0];
    handlers = added[reflects ? 0 : 2].handlers;
    message = message_of(method, &in);
    if (message == NULL) {
        return 0;
    }
    n_answers = 0;
    n_reads = 0;
    asked = (const question *)message;
    insist((reflects ? method->message : method->begin)(the_call, message, handlers));
    insist(n_answers == 1 && n_reads == reflects);
    protobuf_c_message_free_unpacked(message, NULL);
    return 0;
}

/* The first byte says whose question it is. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    if (size < 2 || seed % 8 == 0) {
        return LLVMFuzzerMutate(data, size, max);
    }
    return 1 + mutate_message(data + 1, size - 1, max - 1, 0, seed / 8);
}
