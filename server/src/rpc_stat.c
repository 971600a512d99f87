/* Stat. */
#include <stdlib.h>

#include "errors.h"
#include "service.h"

/* The segments as messages: n of them behind one another, and the pointers to them. */
struct segments {
    Payloadstore__V1__SegmentStat *messages;
    Payloadstore__V1__SegmentStat **pointers;
};

static bool segments_init(struct segments *out, const struct pls_stat *stat)
{
    out->messages = calloc(stat->n_segments + 1, sizeof *out->messages);
    out->pointers = calloc(stat->n_segments + 1, sizeof(Payloadstore__V1__SegmentStat *));
    if (out->messages == NULL || out->pointers == NULL) {
        return false;
    }
    for (size_t i = 0; i < stat->n_segments; i++) {
        Payloadstore__V1__SegmentStat *message = &out->messages[i];
        payloadstore__v1__segment_stat__init(message);
        message->file_id = stat->segments[i].file_id;
        message->bytes = stat->segments[i].bytes;
        message->records = stat->segments[i].records;
        message->active = stat->segments[i].active;
        out->pointers[i] = message;
    }
    return true;
}

static void segments_fini(struct segments *segments)
{
    free(segments->messages);
    free(segments->pointers);
}

static void reply(grpc_c_call *call, const char *name, const struct pls_stat *stat)
{
    struct segments segments;
    if (!segments_init(&segments, stat)) {
        segments_fini(&segments);
        psd_fail(call, PLS_NO_MEMORY, name, NULL);
        return;
    }
    Payloadstore__V1__SealHandle seal = PAYLOADSTORE__V1__SEAL_HANDLE__INIT;
    seal.sealed_id = stat->last_seal.sealed_id;
    seal.compaction_id = stat->last_seal.compaction_id;
    Payloadstore__V1__StatResponse response = PAYLOADSTORE__V1__STAT_RESPONSE__INIT;
    response.store = (char *)name;
    response.disk_usage_bytes = stat->disk_usage_bytes;
    response.records = stat->records;
    response.active_id = stat->active_id;
    response.epoch = stat->epoch;
    response.owner = (char *)stat->owner;
    response.last_seal = stat->sealed ? &seal : NULL;
    response.segments = segments.pointers;
    response.n_segments = stat->n_segments;
    response.incarnation = (char *)stat->incarnation;
    response.appends_stopped = stat->appends_stopped;
    response.free_bytes = stat->free_bytes;
    response.max_payload_bytes = stat->payload_max_bytes;
    payloadstore__v1__payload_store__stat__reply(call, &response);
    segments_fini(&segments);
}

static void stat_store(struct psd_work *work)
{
    const Payloadstore__V1__StatRequest *request = work->request;
    const char *name = psd_store_name(request->store);
    struct pls_error error;
    struct pls_stat stat;
    pls_store *store = NULL;
    enum pls_code code = pls_store_find(work->service->dir, name, &store, &error);
    if (code == PLS_OK) {
        code = pls_store_stat(store, &stat, &error);
    }
    pls_store_release(store);
    if (code != PLS_OK) {
        psd_fail(work->call, code, name, error.text);
        return;
    }
    reply(work->call, name, &stat);
    pls_stat_fini(&stat);
}

void psd_stat(grpc_c_call *call, const Payloadstore__V1__StatRequest *request, void *user)
{
    psd_offload(user, call, request, stat_store);
}
