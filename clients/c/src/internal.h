/* What the client library's files share. */
#ifndef CLIENTS_C_SRC_INTERNAL_H
#define CLIENTS_C_SRC_INTERNAL_H

#include <pthread.h>

#include "grpc-c/client.h"
#include "payloadstore-client/client.h"
#include "payloadstore/v1/payload_store.grpc-c.h"

/* An append without an answer: on its caller's stack, or part of a batch. */
struct plci_unanswered {
    struct plci_unanswered *prev, *next;
    int64_t since_ms;
};

struct plc_client {
    grpc_c_channel *channel;
    char *store;
    int64_t deadline_ms;
    int64_t append_deadline_ms;
    bool wait_for_server;
    pthread_mutex_t lock;              /* a leaf; guards: */
    struct plci_unanswered unanswered; /* the ring's head; the oldest first */
};

/* -- calls ------------------------------------------------------------------------------------- */

const char *plci_store(const plc_client *client, const struct plc_call *call);
uint64_t plci_epoch(const struct plc_call *call);
/* The options of a unary call; `usual_ms` where the call has no deadline of its own. */
struct grpc_c_call_options plci_options(const plc_client *client, const struct plc_call *call,
                                        int64_t usual_ms);

int64_t plci_now_ms(void);

void plci_unanswered_add(plc_client *client, struct plci_unanswered *unanswered);
void plci_unanswered_remove(plc_client *client, struct plci_unanswered *unanswered);
/* When the oldest append without an answer was begun; now where there is none. */
int64_t plci_unanswered_since(plc_client *client);

/* -- errors; each returns the code and takes a NULL error ---------------------------------------
 */

enum plc_code plci_ok(struct plc_error *error);
enum plc_code plci_fail(struct plc_error *error, enum plc_code code, const char *format, ...)
    GRPC_C_PRINTF(3, 4);
/* How a call ended; frees the result. */
enum plc_code plci_end(struct plc_error *error, struct grpc_c_result *result);
/* What a Failure within a stream says. */
enum plc_code plci_failure(struct plc_error *error, const Payloadstore__V1__Failure *failure);

/* -- messages ---------------------------------------------------------------------------------- */

void plci_ref_out(const struct plc_ref *ref, Payloadstore__V1__PayloadRef *out);
/* A ref that is not set is all zeroes. */
struct plc_ref plci_ref_in(const Payloadstore__V1__PayloadRef *ref);
/* Tells `damaged`, unless it is NULL, some at a time. */
void plci_tell_damaged(Payloadstore__V1__DamagedRef *const *refs, size_t n,
                       void (*damaged)(void *arg, const struct plc_damaged *damaged, size_t n),
                       void *arg);
/* False where it is no plc_durability. */
bool plci_durability_out(enum plc_durability durability, Payloadstore__V1__Durability *out);

#endif
