/*
 * payloadstore.v1.PayloadStore: what its rpc_*.c files share. One file an rpc.
 *
 * A handler runs on a polling thread and must not wait. What may wait for the disk goes to one of
 * the store's I/O threads (psd_offload), or to a thread of its own (a compaction, a scrub). A
 * handler gives back what it holds of the store before it finishes its call: when the last call is
 * gone, the data directory can be closed.
 */
#ifndef PAYLOADSTORED_SERVICE_H
#define PAYLOADSTORED_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <grpc-c/grpc-c.h>
#include <payloadstore/payloadstore.h>

#include "idle.h"
#include "payloadstore/v1/payload_store.grpc-c.h"

/* The streams that are open; see stream.h. */
struct psd_link {
    struct psd_link *next, *previous;
    bool is_walker; /* and no stream */
};
struct psd_streams {
    pthread_mutex_t lock; /* a leaf; guards the ring */
    struct psd_link head;
};

struct psd_service {
    pls_dir *dir;                   /* borrowed */
    enum pls_durability durability; /* where a request leaves it open */
    uint32_t payload_max_bytes;
    struct psd_idle_watch idle; /* set by psd_service_init, with what follows */
    struct psd_streams streams;
    atomic_bool stopping;
};

/* Starts what the service runs beside its calls. The fields above are set. 0, or -1. */
int psd_service_init(struct psd_service *service);
/* Makes the calls that nothing is lost by end now, instead of taking up the drain: Verify, and
 * streams that would go on for ever, once they have answered what is under way. */
void psd_service_stop(struct psd_service *service);
/* After the last call has gone. */
void psd_service_fini(struct psd_service *service);

/* Adds the service to a server. `service` is borrowed until the server is destroyed. 0, or -1. */
int psd_service_register(struct psd_service *service, grpc_c_server *server);

void psd_streams_init(struct psd_streams *streams);
void psd_streams_fini(struct psd_streams *streams);

/* False where a request names a durability that does not exist. */
bool psd_durability(const struct psd_service *service, Payloadstore__V1__Durability given,
                    enum pls_durability *durability);

/* The name a request means: "" is the store named "default". */
const char *psd_store_name(const char *name);

/* Copies a payload that came in pieces to `whole`, which has room for it. */
struct iovec psd_put_together(const struct grpc_c_bytes *bytes, uint8_t *whole);

struct pls_ref psd_ref_in(const Payloadstore__V1__PayloadRef *ref);
/* `out` is initialised here. */
void psd_ref_out(const struct pls_ref *ref, Payloadstore__V1__PayloadRef *out);

/* Payloads below this many bytes are copied into their answer: lending one costs several
 * allocations. */
#define PSD_LEND_LEAST 4096u

#define PSD_DAMAGED_MAX 4096u /* in a message: at most 100 bytes each, under half of 1 MiB */

/* Damaged refs as the store gave them, and as messages. On the heap: some hundred KiB. */
struct psd_damaged {
    struct pls_damaged list[PSD_DAMAGED_MAX];
    Payloadstore__V1__PayloadRef refs[PSD_DAMAGED_MAX];
    Payloadstore__V1__DamagedRef messages[PSD_DAMAGED_MAX];
    Payloadstore__V1__DamagedRef *pointers[PSD_DAMAGED_MAX];
};
/* Makes `pointers` of the first n of `list`. */
void psd_damaged_out(struct psd_damaged *damaged, size_t n);

/* A call's request on its way to an I/O thread; freed after `run`, which finishes the call. */
struct psd_work {
    struct pls_job job;
    struct psd_service *service;
    grpc_c_call *call;
    const void *request; /* valid until the call is finished */
    void (*run)(struct psd_work *work);
};

/* Has run(work) called on an I/O thread. Fails the call where memory has run out. */
void psd_offload(struct psd_service *service, grpc_c_call *call, const void *request,
                 void (*run)(struct psd_work *work));

/* -- the handlers, in rpc_<name>.c -- */

void psd_append(grpc_c_call *call, const Payloadstore__V1__AppendRequest *request, void *user);
/* Hands the store what psd_append was given on this thread since the last time. */
void psd_append_round_end(void);
void psd_read(grpc_c_call *call, const Payloadstore__V1__ReadRequest *request, void *user);
void psd_seal(grpc_c_call *call, const Payloadstore__V1__SealRequest *request, void *user);
void psd_claim(grpc_c_call *call, const Payloadstore__V1__ClaimRequest *request, void *user);
void psd_stat(grpc_c_call *call, const Payloadstore__V1__StatRequest *request, void *user);
void psd_list_stores(grpc_c_call *call, const Payloadstore__V1__ListStoresRequest *request,
                     void *user);
void psd_delete_store(grpc_c_call *call, const Payloadstore__V1__DeleteStoreRequest *request,
                      void *user);
void psd_verify(grpc_c_call *call, const Payloadstore__V1__VerifyRequest *request, void *user);
void psd_compact_sealed(grpc_c_call *call, void *user);
void psd_compact_sealed_message(grpc_c_call *call,
                                const Payloadstore__V1__CompactSealedRequest *request, void *user);
void psd_append_stream(grpc_c_call *call, void *user);
void psd_append_stream_message(grpc_c_call *call,
                               const Payloadstore__V1__AppendStreamRequest *request, void *user);
void psd_read_stream(grpc_c_call *call, void *user);
void psd_read_stream_message(grpc_c_call *call, const Payloadstore__V1__ReadStreamRequest *request,
                             void *user);

#endif
