#include "service.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "stream.h"

#define PAYLOAD_FIELD 2u     /* of AppendRequest, and of AppendStreamRequest */
#define SILENCE_MS    60000u /* that a stream which holds something may last */

static struct payloadstore__v1__payload_store_handlers handlers = {
    .append = psd_append,
    .read = psd_read,
    .seal = psd_seal,
    .compact_sealed = psd_compact_sealed,
    .compact_sealed__message = psd_compact_sealed_message,
    .append_stream = psd_append_stream,
    .append_stream__message = psd_append_stream_message,
    .read_stream = psd_read_stream,
    .read_stream__message = psd_read_stream_message,
    .claim = psd_claim,
    .stat = psd_stat,
    .list_stores = psd_list_stores,
    .delete_store = psd_delete_store,
    .verify = psd_verify,
};

int psd_service_init(struct psd_service *service)
{
    atomic_init(&service->stopping, false);
    psd_streams_init(&service->streams);
    return psd_idle_watch_init(&service->idle, SILENCE_MS);
}

void psd_service_stop(struct psd_service *service)
{
    atomic_store(&service->stopping, true);
    psd_streams_stop(&service->streams);
}

void psd_service_fini(struct psd_service *service)
{
    psd_idle_watch_fini(&service->idle);
    psd_streams_fini(&service->streams);
}

static void round_end(void *user)
{
    (void)user;
    psd_append_round_end();
}

/* The method finds its payloads where they were received. */
static bool leave_payloads(grpc_c_server *server, const char *path)
{
    return grpc_c_server_slice_field(server, path, PAYLOAD_FIELD) == 0;
}

int psd_service_register(struct psd_service *service, grpc_c_server *server)
{
    handlers.user = service;
    grpc_c_server_on_round_end(server, round_end, NULL);
    if (payloadstore__v1__payload_store__service_init(server, &handlers) != 0) {
        return -1;
    }
    return leave_payloads(server, "/payloadstore.v1.PayloadStore/Append") &&
                   leave_payloads(server, "/payloadstore.v1.PayloadStore/AppendStream")
               ? 0
               : -1;
}

const char *psd_store_name(const char *name)
{
    return name[0] != '\0' ? name : "default";
}

bool psd_durability(const struct psd_service *service, Payloadstore__V1__Durability given,
                    enum pls_durability *durability)
{
    switch (given) {
    case PAYLOADSTORE__V1__DURABILITY__DURABILITY_UNSPECIFIED:
        *durability = service->durability;
        return true;
    case PAYLOADSTORE__V1__DURABILITY__DURABILITY_BUFFERED:
        *durability = PLS_BUFFERED;
        return true;
    case PAYLOADSTORE__V1__DURABILITY__DURABILITY_SYNCED:
        *durability = PLS_SYNCED;
        return true;
    default:
        return false;
    }
}

struct iovec psd_put_together(const struct grpc_c_bytes *bytes, uint8_t *whole)
{
    uint8_t *at = whole;
    for (size_t i = 0; i < bytes->n_pieces; i++) {
        memcpy(at, bytes->pieces[i].iov_base, bytes->pieces[i].iov_len);
        at += bytes->pieces[i].iov_len;
    }
    return (struct iovec){.iov_base = whole, .iov_len = bytes->length};
}

struct pls_ref psd_ref_in(const Payloadstore__V1__PayloadRef *ref)
{
    return (struct pls_ref){.file_id = ref->file_id,
                            .offset = ref->offset,
                            .length = ref->length,
                            .crc32c = ref->crc32c};
}

void psd_ref_out(const struct pls_ref *ref, Payloadstore__V1__PayloadRef *out)
{
    payloadstore__v1__payload_ref__init(out);
    out->file_id = ref->file_id;
    out->offset = ref->offset;
    out->length = ref->length;
    out->crc32c = ref->crc32c;
}

void psd_damaged_out(struct psd_damaged *damaged, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        Payloadstore__V1__DamagedRef *message = &damaged->messages[i];
        payloadstore__v1__damaged_ref__init(message);
        psd_ref_out(&damaged->list[i].ref, &damaged->refs[i]);
        message->ref = &damaged->refs[i];
        message->code = (uint32_t)psd_status_of(damaged->list[i].code);
        message->message = (char *)pls_strerror(damaged->list[i].code);
        damaged->pointers[i] = message;
    }
}

static void run_work(struct pls_job *job)
{
    struct psd_work *work = (struct psd_work *)((char *)job - offsetof(struct psd_work, job));
    work->run(work);
    free(work);
}

void psd_offload(struct psd_service *service, grpc_c_call *call, const void *request,
                 void (*run)(struct psd_work *work))
{
    struct psd_work *work = malloc(sizeof *work);
    if (work == NULL) {
        psd_fail(call, PLS_NO_MEMORY, NULL, NULL);
        return;
    }
    *work = (struct psd_work){
        .job.run = run_work, .service = service, .call = call, .request = request, .run = run};
    pls_dir_run(service->dir, &work->job);
}
