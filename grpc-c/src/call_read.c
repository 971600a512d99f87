/* What a call receives: its message of the moment, and the client's stream of them. */
#include <stdio.h>

#include "call.h"

/* -- the message of the moment ---------------------------------------------------------------- */

/* A message, NULL or not, with what came with it. */
struct message {
    ProtobufCMessage *message;
    grpc_c_received *bytes;
    size_t inflated; /* bytes of the budget for inflated ones */
};

static struct message detach_message(struct gci_call *call)
{
    struct message last = {call->message, call->bytes, call->inflated};

    call->message = NULL;
    call->bytes = NULL;
    call->inflated = 0;
    return last;
}

/* It goes, and what it took of the budget comes back. */
static void free_message(grpc_c_server *server, struct message message)
{
    if (message.message != NULL) {
        protobuf_c_message_free_unpacked(message.message, NULL);
    }
    grpc_c_received_release(message.bytes);
    if (message.inflated > 0) {
        atomic_fetch_sub(&server->inflated, message.inflated);
    }
}

void gci_call_drop_message(struct gci_call *call)
{
    free_message(call->queue->server, detach_message(call));
}

/* Inflates within the limit of one message and the budget of all. */
static grpc_byte_buffer *inflate_message(struct gci_call *call, grpc_byte_buffer *buffer,
                                         struct gci_error *error)
{
    grpc_c_server *server = call->queue->server;

    buffer = gci_inflate(buffer, server->options.max_receive_bytes, error);
    if (buffer == NULL) {
        return NULL;
    }
    call->inflated = grpc_byte_buffer_length(buffer);
    if (atomic_fetch_add(&server->inflated, call->inflated) + call->inflated >
        server->options.memory_quota_bytes) {
        grpc_byte_buffer_destroy(buffer);
        gci_call_drop_message(call);
        error->code = GRPC_C_RESOURCE_EXHAUSTED;
        (void)snprintf(error->text, sizeof(error->text),
                       "too many bytes of compressed messages in flight");
        return NULL;
    }
    return buffer;
}

/* Takes the buffer, which is not compressed. */
static ProtobufCMessage *unpack(struct gci_call *call, grpc_byte_buffer *buffer,
                                struct gci_error *error)
{
    const ProtobufCMessageDescriptor *type = call->method->table->request;
    size_t overhead = call->queue->server->options.unpack_overhead_bytes;

    if (call->method->sliced == NULL) {
        return gci_unpack(type, buffer, overhead, error);
    }
    return gci_unpack_around(type, call->method->sliced, buffer, overhead, &call->bytes, error);
}

bool gci_call_take(struct gci_call *call, grpc_byte_buffer *buffer, struct gci_error *error)
{
    gci_call_drop_message(call);
    call->compressed = gci_is_compressed(buffer);
    if (call->compressed) {
        buffer = inflate_message(call, buffer, error);
    }
    if (buffer != NULL) {
        call->message = unpack(call, buffer, error);
    }
    return call->message != NULL;
}

/* -- the next one ----------------------------------------------------------------------------- */

/* Starts the read; what there is of the last message is the caller's to free. Under the lock. */
static struct message start_read(struct gci_call *call)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

    call->reading = true;
    op.data.recv_message.recv_message = &call->received;
    gci_call_batch(call, &op, 1, &call->read_tag);
    return detach_message(call);
}

bool grpc_c_call_read(grpc_c_call *handle)
{
    struct gci_call *call = gci_call_enter(handle, __func__);
    const struct grpc_c_method *table;
    grpc_c_server *server;
    struct message last = {NULL, NULL, 0};
    bool mistaken;
    bool may;

    if (call == NULL) {
        return false;
    }
    table = call->method->table;
    server = call->queue->server;
    mistaken = gci_one_request(table->shape) || call->reading;
    may = !mistaken && !call->ended;
    if (may) {
        last = start_read(call);
    }
    gci_call_leave(call);
    if (mistaken) {
        gci_log(GRPC_C_LOG_ERROR, "grpc_c_call_read: refused, %s %s", table->path,
                gci_one_request(table->shape) ? "takes one message" : "is being read already");
    }
    free_message(server, last);
    return may;
}

ProtobufCMessage *grpc_c_call_take_message(grpc_c_call *handle)
{
    struct gci_call *call = gci_call_look(handle, __func__);
    ProtobufCMessage *message = NULL;

    if (call != NULL) {
        message = call->message;
        call->message = NULL;
        gci_call_leave(call);
    }
    return message;
}

bool grpc_c_call_bytes(grpc_c_call *handle, size_t i, struct grpc_c_bytes *bytes)
{
    struct gci_call *call = gci_call_look(handle, __func__);
    bool found;

    if (call == NULL) {
        return false;
    }
    found = grpc_c_received_bytes(call->bytes, i, bytes);
    gci_call_leave(call);
    return found;
}

grpc_c_received *grpc_c_call_take_bytes(grpc_c_call *handle)
{
    struct gci_call *call = gci_call_look(handle, __func__);
    grpc_c_received *bytes = NULL;

    if (call != NULL) {
        bytes = call->bytes;
        call->bytes = NULL;
        gci_call_leave(call);
    }
    if (bytes != NULL) {
        gci_received_take(bytes);
    }
    return bytes;
}

/*
 * The runtime ends a stream that its handler owns: the client gets the status at once, the handler
 * sees a cancelled call, which it finishes as ever.
 */
static void break_off(struct gci_call *call, enum grpc_c_code code, const char *text)
{
    (void)grpc_call_cancel_with_status(call->core, (grpc_status_code)code, text, NULL);
    pthread_mutex_lock(&call->slot->lock);
    call->cancelled = true;
    pthread_mutex_unlock(&call->slot->lock);
}

static void end_stream(struct gci_call *call, bool cancelled)
{
    pthread_mutex_lock(&call->slot->lock);
    call->ended = true;
    call->cancelled = call->cancelled || cancelled;
    pthread_mutex_unlock(&call->slot->lock);
}

static bool deliver(struct gci_call *call)
{
    bool handled;

    gci_call_callback_begin(call);
    handled = call->method->table->message(gci_slot_handle(call->slot), call->message,
                                           call->method->handlers);
    gci_call_callback_end();
    return handled;
}

static void deliver_message(struct gci_call *call, grpc_byte_buffer *buffer)
{
    bool cut = buffer == NULL && grpc_call_failed_before_recv_message(call->core) != 0;
    struct gci_error error;

    if (buffer != NULL && !gci_call_take(call, buffer, &error)) {
        break_off(call, error.code, error.text);
    }
    if (call->message == NULL) {
        end_stream(call, cut);
    }
    if (!deliver(call)) {
        break_off(call, GRPC_C_UNIMPLEMENTED, "the method takes no messages");
    }
}

void gci_call_on_read(struct gci_tag *tag, bool ok)
{
    struct gci_call *call = gci_container_of(tag, struct gci_call, read_tag);

    call->read_ok = ok;
    gci_turn(call, &call->read);
}

void gci_call_run_read(struct gci_call *call)
{
    grpc_byte_buffer *buffer;
    bool open;

    pthread_mutex_lock(&call->slot->lock);
    call->reading = false;
    buffer = call->read_ok ? call->received : NULL;
    call->received = call->read_ok ? NULL : call->received;
    open = call->state == GCI_CALL_OPEN;
    pthread_mutex_unlock(&call->slot->lock);
    if (open) {
        deliver_message(call, buffer);
    } else {
        grpc_byte_buffer_destroy(buffer);
    }
}
