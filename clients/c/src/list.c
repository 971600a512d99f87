#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct listing {
    bool (*name)(void *arg, const char *store);
    void *arg;
    char *token; /* of the page to come; NULL: the first */
    bool stopped;
    bool no_memory;
};

/* True where another page is to be asked for. */
static bool take_page(struct listing *l, const Payloadstore__V1__ListStoresResponse *response)
{
    for (size_t i = 0; i < response->n_stores; i++) {
        if (!l->name(l->arg, response->stores[i])) {
            l->stopped = true;
            return false;
        }
    }
    if (response->next_page_token[0] == '\0') {
        return false;
    }
    free(l->token);
    l->token = strdup(response->next_page_token);
    l->no_memory = l->token == NULL;
    return !l->no_memory;
}

static enum plc_code list(struct listing *l, plc_client *client, const struct plc_call *call,
                          struct plc_error *error)
{
    enum plc_code code;
    bool more;

    do {
        const struct grpc_c_call_options options = plci_options(client, call, client->deadline_ms);
        Payloadstore__V1__ListStoresRequest request = PAYLOADSTORE__V1__LIST_STORES_REQUEST__INIT;
        struct grpc_c_result result = {0};
        if (l->token != NULL) {
            request.page_token = l->token;
        }
        Payloadstore__V1__ListStoresResponse *response =
            payloadstore__v1__payload_store__list_stores__sync(client->channel, &request, &options,
                                                               &result);
        more = response != NULL && take_page(l, response);
        payloadstore__v1__list_stores_response__free_unpacked(response, NULL);
        code = plci_end(error, &result);
    } while (more);
    return code;
}

enum plc_code plc_list_stores(plc_client *client, const struct plc_call *call,
                              bool (*name)(void *arg, const char *store), void *arg,
                              struct plc_error *error)
{
    struct listing l = {.name = name, .arg = arg};

    if (name == NULL) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "the callback is NULL");
    }
    enum plc_code code = list(&l, client, call, error);
    free(l.token);
    if (l.stopped) {
        return plci_fail(error, PLC_STOPPED, "the callback stopped the listing");
    }
    return l.no_memory ? plci_fail(error, PLC_NO_MEMORY, "no memory for a page's token") : code;
}
