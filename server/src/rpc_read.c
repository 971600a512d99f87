/* Read: the payload goes out from the memory that the store read it into; a small one, which is
 * copied into the answer, is read into the call's own. */
#include <stdlib.h>

#include "errors.h"
#include "service.h"

struct read_call {
    grpc_c_call *call;
    const char *name; /* in the request */
    pls_store *store; /* held */
    struct pls_read read;
    uint8_t room[]; /* of a small payload */
};

/* The transport has sent the bytes. */
static void release_view(void *arg)
{
    struct read_call *r = arg;
    pls_view_release(&r->read.view);
    free(r);
}

static void read_done(struct pls_read *read, enum pls_code code)
{
    struct read_call *r = read->data;
    pls_store_release(r->store);
    if (code != PLS_OK) {
        psd_fail_ref(r->call, code, r->name, &read->ref);
        free(r);
        return;
    }
    Payloadstore__V1__ReadResponse response = PAYLOADSTORE__V1__READ_RESPONSE__INIT;
    struct grpc_c_lent lent = {
        .data = read->view.data, .length = read->view.length, .release = release_view, .arg = r};
    response.payload.data = (uint8_t *)read->view.data;
    response.payload.len = read->view.length;
    if (read->view.length >= PSD_LEND_LEAST) {
        payloadstore__v1__payload_store__read__reply_lent(r->call, &response, &lent, 1);
    } else {
        payloadstore__v1__payload_store__read__reply(r->call, &response);
        release_view(r);
    }
}

void psd_read(grpc_c_call *call, const Payloadstore__V1__ReadRequest *request, void *user)
{
    struct psd_service *service = user;
    const char *name = psd_store_name(request->store);
    if (request->ref == NULL) {
        psd_fail(call, PLS_INVALID_ARGUMENT, name, "the request has no ref");
        return;
    }
    bool small = request->ref->length < PSD_LEND_LEAST;
    struct read_call *r = malloc(sizeof *r + (small ? PLS_ROOM(request->ref->length) : 0));
    if (r == NULL) {
        psd_fail(call, PLS_NO_MEMORY, name, NULL);
        return;
    }
    *r = (struct read_call){.call = call, .name = name};
    struct pls_error error;
    enum pls_code code = pls_store_find(service->dir, name, &r->store, &error);
    if (code != PLS_OK) {
        free(r);
        psd_fail(call, code, name, error.text);
        return;
    }
    r->read = (struct pls_read){.ref = psd_ref_in(request->ref),
                                .room = small ? r->room : NULL,
                                .done = read_done,
                                .data = r};
    pls_read(r->store, &r->read);
}
