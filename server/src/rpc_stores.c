/* ListStores and DeleteStore. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "stream.h"

#define PAGE_DEFAULT 1000u
#define PAGE_MAX     10000u

/* A page's names, and the pointers that a message wants. */
struct page {
    char (*names)[PLS_NAME_MAX + 1];
    char **pointers;
    size_t n;
    bool more;
};

static bool page_init(struct page *page, size_t size)
{
    *page = (struct page){.names = calloc(size, sizeof *page->names),
                          .pointers = calloc(size, sizeof(char *))};
    return page->names != NULL && page->pointers != NULL;
}

static void page_fini(struct page *page)
{
    free(page->names);
    free(page->pointers);
}

/* The token is the last name of the page before: names are listed in byte order. */
void psd_list_stores(grpc_c_call *call, const Payloadstore__V1__ListStoresRequest *request,
                     void *user)
{
    const struct psd_service *service = user;
    if (request->page_token[0] != '\0' && !pls_name_valid(request->page_token)) {
        psd_fail(call, PLS_INVALID_ARGUMENT, NULL, "page_token is none that this server gave out");
        return;
    }
    size_t size = request->page_size == 0 ? PAGE_DEFAULT : request->page_size;
    size = size > PAGE_MAX ? PAGE_MAX : size;
    struct page page;
    if (!page_init(&page, size)) {
        page_fini(&page);
        psd_fail(call, PLS_NO_MEMORY, NULL, NULL);
        return;
    }
    page.n = pls_dir_list(service->dir, request->page_token, page.names, size, &page.more);
    for (size_t i = 0; i < page.n; i++) {
        page.pointers[i] = page.names[i];
    }
    Payloadstore__V1__ListStoresResponse response = PAYLOADSTORE__V1__LIST_STORES_RESPONSE__INIT;
    response.stores = page.pointers;
    response.n_stores = page.n;
    if (page.more) {
        response.next_page_token = page.names[page.n - 1];
    }
    payloadstore__v1__payload_store__list_stores__reply(call, &response);
    page_fini(&page);
}

static void delete_store(struct psd_work *work)
{
    const Payloadstore__V1__DeleteStoreRequest *request = work->request;
    struct pls_error error;
    enum pls_code code = pls_store_delete(work->service->dir, request->store, request->epoch,
                                          request->incarnation, &error);
    if (code != PLS_OK) {
        psd_fail(work->call, code, request->store, error.text);
        return;
    }
    psd_streams_store_deleted(&work->service->streams);
    Payloadstore__V1__DeleteStoreResponse response = PAYLOADSTORE__V1__DELETE_STORE_RESPONSE__INIT;
    payloadstore__v1__payload_store__delete_store__reply(work->call, &response);
}

void psd_delete_store(grpc_c_call *call, const Payloadstore__V1__DeleteStoreRequest *request,
                      void *user)
{
    if (request->store[0] == '\0') {
        psd_fail(call, PLS_INVALID_ARGUMENT, NULL,
                 "no store is named; the one named \"default\" is deleted by that name");
        return;
    }
    psd_offload(user, call, request, delete_store);
}
