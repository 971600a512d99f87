#include "stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

/* -- the ring of open streams ------------------------------------------------------------------ */

void psd_streams_init(struct psd_streams *streams)
{
    pthread_mutex_init(&streams->lock, NULL);
    streams->head = (struct psd_link){.next = &streams->head, .previous = &streams->head};
}

void psd_streams_fini(struct psd_streams *streams)
{
    pthread_mutex_destroy(&streams->lock);
}

static void insert_after(struct psd_link *link, struct psd_link *before)
{
    link->previous = before;
    link->next = before->next;
    before->next->previous = link;
    before->next = link;
}

static void take_out(struct psd_link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
}

/* Moves the walker's own link on by one; the stream it has passed, held. NULL at the end, with the
 * link taken out. */
static struct psd_stream *walk_on(struct psd_streams *streams, struct psd_link *walker)
{
    struct psd_stream *stream = NULL;
    pthread_mutex_lock(&streams->lock);
    while (stream == NULL && walker->next != &streams->head) {
        struct psd_link *passed = walker->next;
        take_out(walker);
        insert_after(walker, passed);
        if (!passed->is_walker) {
            stream = (struct psd_stream *)((char *)passed - offsetof(struct psd_stream, link));
            psd_stream_hold(stream);
        }
    }
    if (stream == NULL) {
        take_out(walker);
    }
    pthread_mutex_unlock(&streams->lock);
    return stream;
}

/* A stream that finishes takes itself out of the ring: so not under the lock. */
static void wake_all(struct psd_streams *streams, bool store_deleted)
{
    struct psd_link walker = {.is_walker = true};
    struct psd_stream *stream;
    pthread_mutex_lock(&streams->lock);
    insert_after(&walker, &streams->head);
    pthread_mutex_unlock(&streams->lock);
    while ((stream = walk_on(streams, &walker)) != NULL) {
        if (store_deleted) {
            atomic_store(&stream->store_in_doubt, true);
        }
        psd_stream_run(stream);
        psd_stream_release(stream);
    }
}

void psd_streams_stop(struct psd_streams *streams)
{
    wake_all(streams, false);
}

void psd_streams_store_deleted(struct psd_streams *streams)
{
    wake_all(streams, true);
}

/* -- life -------------------------------------------------------------------------------------- */

struct psd_stream *psd_stream_hold(struct psd_stream *stream)
{
    atomic_fetch_add(&stream->references, 1);
    return stream;
}

void psd_stream_release(struct psd_stream *stream)
{
    if (atomic_fetch_sub(&stream->references, 1) == 1) {
        if (stream->message != NULL) {
            protobuf_c_message_free_unpacked(stream->message, NULL);
        }
        grpc_c_received_release(stream->bytes);
        free(stream->text);
        stream->destroy(stream);
    }
}

static void call_is_gone(void *data)
{
    psd_stream_release(data);
}

static void on_cancel(grpc_c_call *call, void *arg)
{
    (void)call;
    psd_stream_run(arg);
}

void psd_stream_begin(struct psd_stream *stream, grpc_c_call *call, struct psd_service *service)
{
    stream->call = call;
    stream->service = service;
    atomic_init(&stream->references, 1);
    grpc_c_call_set_data(call, stream, call_is_gone);
    grpc_c_call_on_cancel(call, on_cancel, stream);
    pthread_mutex_lock(&service->streams.lock);
    insert_after(&stream->link, &service->streams.head);
    pthread_mutex_unlock(&service->streams.lock);
    psd_stream_run(stream);
}

void psd_stream_finish(struct psd_stream *stream)
{
    stream->finished = true;
    pthread_mutex_lock(&stream->service->streams.lock);
    take_out(&stream->link);
    pthread_mutex_unlock(&stream->service->streams.lock);
    pls_store_release(stream->store);
    stream->store = NULL;
    if (stream->code == PLS_OK) {
        grpc_c_call_finish(stream->call, &(struct grpc_c_status){.code = GRPC_C_OK});
    } else {
        psd_fail(stream->call, stream->code, stream->named ? stream->name : NULL, stream->text);
    }
}

/* -- events ------------------------------------------------------------------------------------ */

void psd_stream_run(struct psd_stream *stream)
{
    if (atomic_fetch_add(&stream->events, 1) > 0) {
        return;
    }
    unsigned seen;
    do {
        seen = atomic_load(&stream->events);
        stream->step(stream);
    } while (atomic_fetch_sub(&stream->events, seen) != seen);
}

void psd_stream_on_message(grpc_c_call *call)
{
    struct psd_stream *stream = grpc_c_call_data(call);
    stream->message = grpc_c_call_take_message(call);
    stream->bytes = grpc_c_call_take_bytes(call);
    atomic_store(&stream->message_came, true);
    psd_stream_run(stream);
}

void psd_stream_on_written(grpc_c_call *call, void *arg)
{
    struct psd_stream *stream = arg;
    (void)call;
    atomic_fetch_add(&stream->answers_written, 1);
    psd_stream_run(stream);
}

/* -- steps ------------------------------------------------------------------------------------- */

static bool store_is_gone(struct psd_stream *stream)
{
    struct pls_error error;
    pls_store *found = NULL;
    enum pls_code code = pls_store_find(stream->service->dir, stream->name, &found, &error);
    bool gone = code == PLS_NO_STORE || (code == PLS_OK && found != stream->store);
    pls_store_release(found);
    return gone;
}

static void give_back_charges(struct psd_stream *stream)
{
    for (unsigned n = atomic_exchange(&stream->answers_written, 0); n > 0; n--) {
        stream->charged -= stream->charges[stream->first_charge];
        stream->first_charge = (stream->first_charge + 1) % PSD_STREAM_ANSWERS;
        stream->n_charges--;
    }
}

bool psd_stream_take_events(struct psd_stream *stream)
{
    if (stream->finished) {
        return false;
    }
    give_back_charges(stream);
    if (atomic_load(&stream->message_came) && stream->message == NULL) {
        stream->half_closed = true;
        stream->ending = true;
    }
    if (grpc_c_call_cancelled(stream->call)) {
        psd_stream_deny(stream, PLS_CANCELLED, NULL);
    } else if (atomic_load(&stream->service->stopping) && !stream->half_closed) {
        psd_stream_deny(stream, PLS_CLOSED, "the server is being stopped");
    }
    if (atomic_exchange(&stream->store_in_doubt, false) && stream->store != NULL &&
        store_is_gone(stream)) {
        psd_stream_deny(stream, PLS_NO_STORE, "the store was deleted");
    }
    return true;
}

ProtobufCMessage *psd_stream_take_message(struct psd_stream *stream, grpc_c_received **bytes)
{
    if (!atomic_exchange(&stream->message_came, false)) {
        return NULL;
    }
    ProtobufCMessage *message = stream->message;
    grpc_c_received *received = stream->bytes;
    stream->message = NULL;
    stream->bytes = NULL;
    stream->reading = false;
    if (!stream->ending && bytes != NULL) {
        *bytes = received;
        return message;
    }
    grpc_c_received_release(received);
    if (!stream->ending) {
        return message;
    }
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
    return NULL;
}

bool psd_stream_has_message(const struct psd_stream *stream)
{
    return atomic_load(&stream->message_came) && stream->message != NULL;
}

void psd_stream_read(struct psd_stream *stream)
{
    if (!stream->reading && !stream->ending) {
        stream->reading = true;
        grpc_c_call_read(stream->call);
    }
}

bool psd_stream_take_name(struct psd_stream *stream, const char *name)
{
    const char *meant = psd_store_name(name);
    if (stream->named) {
        bool same = name[0] == '\0' || strcmp(meant, stream->name) == 0;
        if (!same) {
            psd_stream_deny(stream, PLS_INVALID_ARGUMENT,
                            "a later message names another store than the first");
        }
        return same;
    }
    if (!pls_name_valid(meant)) {
        psd_stream_deny(stream, PLS_INVALID_NAME, NULL);
        return false;
    }
    snprintf(stream->name, sizeof stream->name, "%s", meant);
    stream->named = true;
    return true;
}

void psd_stream_deny(struct psd_stream *stream, enum pls_code code, const char *text)
{
    stream->ending = true;
    if (stream->code == PLS_OK || code == PLS_CANCELLED) {
        free(stream->text);
        stream->code = code;
        stream->text = text != NULL ? strdup(text) : NULL;
    }
}

bool psd_stream_has_room(const struct psd_stream *stream, uint64_t bytes, uint64_t limit)
{
    return stream->n_charges == 0 ||
           (stream->n_charges < PSD_STREAM_ANSWERS && stream->charged + bytes <= limit);
}

void psd_stream_charge(struct psd_stream *stream, uint64_t bytes)
{
    unsigned last = (stream->first_charge + stream->n_charges) % PSD_STREAM_ANSWERS;
    stream->charges[last] = bytes;
    stream->charged += bytes;
    stream->n_charges++;
}
