#include "health.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/health/v1/health.grpc-c.h"

#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

typedef Grpc__Health__V1__HealthCheckRequest check_request;
typedef Grpc__Health__V1__HealthCheckResponse check_response;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;

/*
 * One Watch stream. On the list, the call belongs to whoever takes it off: its cancellation or
 * psd_health_stop, and they finish it. Freed when the call is gone.
 */
struct watch {
    struct watch *previous, *next;
    struct psd_health *health;
    grpc_c_call *call;
    bool known; /* whether the service it asks about is one of ours */
    bool listed;
};

struct psd_health {
    struct grpc__health__v1__health_handlers handlers;
    pthread_mutex_t lock; /* guards what follows; no other lock is taken by us under it */
    bool serving;
    bool stopped;
    struct watch *watches;
};

static const char *const names[] = {"", "payloadstore.v1.PayloadStore"};

#define N_NAMES (sizeof names / sizeof names[0])

static bool is_known(const char *name)
{
    for (size_t i = 0; i < N_NAMES; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Under the lock. */
static serving_status status_of(const struct psd_health *health)
{
    return health->serving ? STATUS(SERVING) : STATUS(NOT_SERVING);
}

static serving_status current_status(struct psd_health *health)
{
    serving_status status;

    pthread_mutex_lock(&health->lock);
    status = status_of(health);
    pthread_mutex_unlock(&health->lock);
    return status;
}

/* -- Check and List ---------------------------------------------------------------------------- */

static void check(grpc_c_call *call, const check_request *request, void *user)
{
    check_response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    if (!is_known(request->service)) {
        grpc_c_call_fail(call, GRPC_C_NOT_FOUND, "the server does not know this service");
        return;
    }
    response.status = current_status(user);
    grpc__health__v1__health__check__reply(call, &response);
}

static void list(grpc_c_call *call, const Grpc__Health__V1__HealthListRequest *request, void *user)
{
    Grpc__Health__V1__HealthListResponse response = GRPC__HEALTH__V1__HEALTH_LIST_RESPONSE__INIT;
    Grpc__Health__V1__HealthListResponse__StatusesEntry entries[N_NAMES];
    Grpc__Health__V1__HealthListResponse__StatusesEntry *pointers[N_NAMES];
    check_response status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    (void)request;
    status.status = current_status(user);
    for (size_t i = 0; i < N_NAMES; i++) {
        grpc__health__v1__health_list_response__statuses_entry__init(&entries[i]);
        entries[i].key = (char *)names[i];
        entries[i].value = &status;
        pointers[i] = &entries[i];
    }
    response.n_statuses = N_NAMES;
    response.statuses = pointers;
    grpc__health__v1__health__list__reply(call, &response);
}

/* -- Watch ------------------------------------------------------------------------------------- */

/* Under the lock. */
static void list_add(struct watch *watch)
{
    struct psd_health *health = watch->health;

    watch->listed = true;
    watch->next = health->watches;
    if (watch->next != NULL) {
        watch->next->previous = watch;
    }
    health->watches = watch;
}

/* Under the lock. Returns whether the watch was on the list: its call is the caller's to finish. */
static bool list_take(struct watch *watch)
{
    bool listed = watch->listed;

    if (listed) {
        if (watch->previous != NULL) {
            watch->previous->next = watch->next;
        } else {
            watch->health->watches = watch->next;
        }
        if (watch->next != NULL) {
            watch->next->previous = watch->previous;
        }
        watch->listed = false;
    }
    return listed;
}

static void send_status(grpc_c_call *call, serving_status status)
{
    check_response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    response.status = status;
    grpc__health__v1__health__watch__send(call, &response, NULL, NULL);
}

static void finish_stopping(grpc_c_call *call)
{
    grpc_c_call_fail(call, GRPC_C_UNAVAILABLE, "the server is stopping");
}

static void on_cancel(grpc_c_call *call, void *arg)
{
    struct watch *watch = arg;
    struct psd_health *health = watch->health;
    bool ours;

    pthread_mutex_lock(&health->lock);
    ours = list_take(watch);
    pthread_mutex_unlock(&health->lock);
    if (ours) {
        grpc_c_call_fail(call, GRPC_C_CANCELLED, "the caller left");
    }
}

/*
 * Writing to a call on the list under the lock keeps the changes in order, and keeps the call from
 * being finished meanwhile; a write only puts the message into the call's queue.
 */
static void start_watch(struct watch *watch)
{
    struct psd_health *health = watch->health;
    grpc_c_call *call = watch->call;
    bool stopped;

    pthread_mutex_lock(&health->lock);
    send_status(call, watch->known ? status_of(health) : STATUS(SERVICE_UNKNOWN));
    stopped = health->stopped;
    if (!stopped) {
        list_add(watch);
        grpc_c_call_on_cancel(call, on_cancel, watch);
    }
    pthread_mutex_unlock(&health->lock);
    if (stopped) {
        finish_stopping(call);
    }
}

static void watch(grpc_c_call *call, const check_request *request, void *user)
{
    struct watch *started = calloc(1, sizeof *started);

    if (started == NULL) {
        grpc_c_call_fail(call, GRPC_C_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    started->health = user;
    started->call = call;
    started->known = is_known(request->service);
    grpc_c_call_set_data(call, started, free);
    start_watch(started);
}

void psd_health_set(struct psd_health *health, bool serving)
{
    pthread_mutex_lock(&health->lock);
    if (!health->stopped && health->serving != serving) {
        health->serving = serving;
        for (struct watch *each = health->watches; each != NULL; each = each->next) {
            if (each->known) {
                send_status(each->call, status_of(health));
            }
        }
    }
    pthread_mutex_unlock(&health->lock);
}

/* The call of a watch taken off the list, or NULL where the list is empty. */
static grpc_c_call *take_first(struct psd_health *health)
{
    struct watch *first;

    pthread_mutex_lock(&health->lock);
    first = health->watches;
    if (first != NULL) {
        list_take(first);
    }
    pthread_mutex_unlock(&health->lock);
    /* Not yet finished, so that its watch is still there. */
    return first != NULL ? first->call : NULL;
}

void psd_health_stop(struct psd_health *health)
{
    grpc_c_call *call;

    psd_health_set(health, false);
    pthread_mutex_lock(&health->lock);
    health->stopped = true;
    pthread_mutex_unlock(&health->lock);
    while ((call = take_first(health)) != NULL) {
        finish_stopping(call);
    }
}

/* -- life -------------------------------------------------------------------------------------- */

struct psd_health *psd_health_create(void)
{
    struct psd_health *health = calloc(1, sizeof *health);

    if (health == NULL) {
        return NULL;
    }
    pthread_mutex_init(&health->lock, NULL);
    health->handlers.check = check;
    health->handlers.list = list;
    health->handlers.watch = watch;
    health->handlers.user = health;
    return health;
}

void psd_health_destroy(struct psd_health *health)
{
    if (health != NULL) {
        pthread_mutex_destroy(&health->lock);
        free(health);
    }
}

int psd_health_register(struct psd_health *health, grpc_c_server *server)
{
    return grpc__health__v1__health__service_init(server, &health->handlers);
}
