/* The server's life: created, started, drained, destroyed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "call.h"
#include "listener.h"
#include "server.h"

#define DEFAULT_POLLERS           2u
#define DEFAULT_ACCEPTS           256u
#define DEFAULT_MAX_RECEIVE       ((size_t)4 << 20)
#define DEFAULT_UNPACK_OVERHEAD   ((size_t)32 << 20)
#define DEFAULT_MEMORY_QUOTA      ((size_t)512 << 20)
#define DEFAULT_KEEPALIVE         20000u
#define DEFAULT_KEEPALIVE_TIMEOUT 10000u
#define DEFAULT_MIN_PING_INTERVAL 5000u
#define DEFAULT_HANDSHAKE_TIMEOUT 20000u
#define DEFAULT_MAX_METADATA      ((size_t)8 << 10)
#define DEFAULT_WORKER_LINE       1000u
#define DEFAULT_FORGOTTEN         5000u
#define LEAVE_MS                  200 /* that an idle client has for closing its connection at a shutdown */

static void set_default(unsigned *option, unsigned value)
{
    *option = *option != 0 ? *option : value;
}

static void set_default_size(size_t *option, size_t value)
{
    *option = *option != 0 ? *option : value;
}

static struct grpc_c_server_options with_defaults(const struct grpc_c_server_options *given)
{
    struct grpc_c_server_options o = {0};

    if (given != NULL) {
        o = *given;
    }
    set_default(&o.pollers, DEFAULT_POLLERS);
    set_default(&o.accepts, DEFAULT_ACCEPTS);
    set_default(&o.worker_line, DEFAULT_WORKER_LINE);
    set_default(&o.forgotten_ms, DEFAULT_FORGOTTEN);
    set_default(&o.keepalive_ms, DEFAULT_KEEPALIVE);
    set_default(&o.keepalive_timeout_ms, DEFAULT_KEEPALIVE_TIMEOUT);
    set_default(&o.min_ping_interval_ms, DEFAULT_MIN_PING_INTERVAL);
    set_default(&o.handshake_timeout_ms, DEFAULT_HANDSHAKE_TIMEOUT);
    set_default_size(&o.max_receive_bytes, DEFAULT_MAX_RECEIVE);
    set_default_size(&o.unpack_overhead_bytes, DEFAULT_UNPACK_OVERHEAD);
    set_default_size(&o.memory_quota_bytes, DEFAULT_MEMORY_QUOTA);
    set_default_size(&o.max_metadata_bytes, DEFAULT_MAX_METADATA);
    o.max_receive_bytes = o.max_receive_bytes < INT32_MAX ? o.max_receive_bytes : INT32_MAX;
    return o;
}

static grpc_arg int_arg(const char *key, size_t value)
{
    grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)key};

    arg.value.integer = value < INT32_MAX ? (int)value : INT32_MAX;
    return arg;
}

#define ARGS_ALWAYS 12
#define ARGS_MAX    (ARGS_ALWAYS + 5)

/* 0: core's own, which is none. */
static void add_limit(grpc_channel_args *args, const char *key, size_t value)
{
    if (value != 0) {
        args->args[args->num_args++] = int_arg(key, value);
    }
}

/*
 * Core would inflate whatever comes, however large, before it looks at the size, and its quota does
 * not see it: so it hands messages over as they came, and inflate.c has the bounds.
 */
static grpc_server *create_core(const struct grpc_c_server_options *o, grpc_resource_quota *quota)
{
    grpc_arg args[ARGS_MAX] = {
        int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0),
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, o->max_receive_bytes),
        int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
        int_arg(GRPC_ARG_MAX_METADATA_SIZE, o->max_metadata_bytes),
        int_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, o->handshake_timeout_ms),
        int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, o->keepalive_ms),
        int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, o->keepalive_timeout_ms),
        int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, !o->keepalive_with_calls_only),
        int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0), /* our own pings: no limit */
        int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, o->min_ping_interval_ms),
        int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
        {.type = GRPC_ARG_POINTER, .key = (char *)GRPC_ARG_RESOURCE_QUOTA},
    };
    grpc_channel_args list = {ARGS_ALWAYS, args};

    args[ARGS_ALWAYS - 1].value.pointer.p = quota;
    args[ARGS_ALWAYS - 1].value.pointer.vtable = grpc_resource_quota_arg_vtable();
    add_limit(&list, GRPC_ARG_MAX_CONNECTION_AGE_MS, o->max_connection_age_ms);
    add_limit(&list, GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, o->max_connection_age_grace_ms);
    add_limit(&list, GRPC_ARG_MAX_CONNECTION_IDLE_MS, o->max_connection_idle_ms);
    add_limit(&list, GRPC_ARG_MAX_CONCURRENT_STREAMS, o->max_concurrent_streams);
    add_limit(&list, GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, o->max_send_bytes);
    return grpc_server_create(&list, NULL);
}

static void on_core_shut(struct gci_tag *tag, bool ok)
{
    grpc_c_server *server = gci_container_of(tag, grpc_c_server, shutdown_tag);

    (void)ok;
    pthread_mutex_lock(&server->lock);
    server->notified = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static void init_lock(grpc_c_server *server)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&server->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &attr);
    pthread_condattr_destroy(&attr);
}

grpc_c_server *grpc_c_server_create(const struct grpc_c_server_options *options)
{
    grpc_c_server *server = calloc(1, sizeof(*server));

    if (server == NULL) {
        return NULL;
    }
    server->options = with_defaults(options);
    server->queues = calloc(server->options.pollers, sizeof(*server->queues));
    if (server->options.workers != 0) {
        server->pool = gci_pool_create(server->options.workers, server->options.worker_line);
    }
    if (server->queues == NULL || (server->options.workers != 0 && server->pool == NULL)) {
        gci_pool_destroy(server->pool);
        free(server->queues);
        free(server);
        return NULL;
    }
    gci_library_hold();
    init_lock(server);
    gci_tag_init(&server->shutdown_tag, on_core_shut);
    server->quota = grpc_resource_quota_create("grpc-c");
    grpc_resource_quota_resize(server->quota, server->options.memory_quota_bytes);
    server->core = create_core(&server->options, server->quota);
    for (unsigned i = 0; i < server->options.pollers; i++) {
        server->queues[i].server = server;
        gci_help_init(&server->queues[i]);
        gci_poller_init(&server->queues[i].poller, gci_round_take);
        grpc_server_register_completion_queue(server->core, server->queues[i].poller.queue, NULL);
    }
    return server;
}

grpc_c_server *grpc_c_server_create_by_host(const char *host)
{
    grpc_c_server *server = grpc_c_server_create(NULL);
    char cause[256];

    if (server != NULL && grpc_c_server_listen(server, host, NULL, cause, sizeof(cause)) != 0) {
        gci_log(GRPC_C_LOG_ERROR, "cannot listen: %s", cause);
        grpc_c_server_destroy(server);
        return NULL;
    }
    return server;
}

/* -- services --------------------------------------------------------------------------------- */

static struct gci_method *find_method(const grpc_c_server *server, const char *path)
{
    for (size_t i = 0; i < server->n_methods; i++) {
        if (strcmp(server->methods[i].table->path, path) == 0) {
            return &server->methods[i];
        }
    }
    return NULL;
}

static bool any_known(const grpc_c_server *server, const struct grpc_c_service *service)
{
    for (size_t i = 0; i < service->n_methods; i++) {
        if (find_method(server, service->methods[i].path) != NULL) {
            return true;
        }
    }
    return false;
}

/* Host NULL: any :authority. With a host, calls that name the server otherwise never arrive. */
static void *register_method(grpc_c_server *server, const struct grpc_c_method *method)
{
    return grpc_server_register_method(server->core, method->path, NULL,
                                       gci_one_request(method->shape)
                                           ? GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER
                                           : GRPC_SRM_PAYLOAD_NONE,
                                       0);
}

int grpc_c_server_add_service(grpc_c_server *server, const struct grpc_c_service *service,
                              const void *handlers)
{
    struct gci_method *methods;

    if (server->state != GCI_SETUP || any_known(server, service)) {
        return -1;
    }
    if (service->n_methods == 0) {
        return 0;
    }
    methods = realloc(server->methods, (server->n_methods + service->n_methods) * sizeof(*methods));
    if (methods == NULL) {
        return -1;
    }
    server->methods = methods;
    for (size_t i = 0; i < service->n_methods; i++) {
        struct gci_method *method = &methods[server->n_methods];
        memset(method, 0, sizeof(*method));
        method->table = &service->methods[i];
        method->handlers = handlers;
        method->registered = register_method(server, method->table);
        if (method->registered == NULL) { /* twice in this very table */
            return -1;
        }
        server->n_methods++;
    }
    return 0;
}

int grpc_c_server_slice_field(grpc_c_server *server, const char *path, unsigned number)
{
    struct gci_method *method = find_method(server, path);
    const ProtobufCFieldDescriptor *field;

    if (server->state != GCI_SETUP || method == NULL) {
        return -1;
    }
    field = protobuf_c_message_descriptor_get_field(method->table->request, number);
    if (field == NULL || field->type != PROTOBUF_C_TYPE_BYTES) {
        return -1;
    }
    method->sliced = field;
    return 0;
}

void grpc_c_server_on_round_end(grpc_c_server *server, void (*run)(void *user), void *user)
{
    GCI_CHECK(server->state == GCI_SETUP && server->pool == NULL);
    server->round_end = (struct gci_round_end){run, user};
}

/* -- start and stop --------------------------------------------------------------------------- */

struct gci_share *gci_share_of(struct gci_queue *queue, const struct gci_method *method)
{
    const grpc_c_server *server = queue->server;
    bool unknown = method == &server->unknown;

    return &queue->shares[unknown ? server->n_methods : (size_t)(method - server->methods)];
}

static int make_shares(grpc_c_server *server)
{
    for (unsigned i = 0; i < server->options.pollers; i++) {
        struct gci_queue *queue = &server->queues[i];
        queue->shares = calloc(server->n_methods + 1, sizeof(*queue->shares));
        if (queue->shares == NULL) {
            return -1;
        }
    }
    return 0;
}

int grpc_c_server_start(grpc_c_server *server)
{
    GCI_CHECK(server->state == GCI_SETUP);
    if (make_shares(server) != 0) {
        return -1;
    }
    if (server->pool != NULL && gci_pool_start(server->pool) != 0) {
        return -1;
    }
    for (unsigned i = 0; i < server->options.pollers; i++) {
        char name[16]; /* what Linux keeps of a thread's name */
        (void)snprintf(name, sizeof(name), "grpc-c/%u", i % 1000);
        if (gci_poller_start(&server->queues[i].poller, name) != 0) {
            return -1;
        }
    }
    grpc_server_start(server->core);
    if (server->listener != NULL && gci_listener_start(server->listener, server) != 0) {
        return -1;
    }
    pthread_mutex_lock(&server->lock);
    server->state = GCI_STARTED;
    pthread_mutex_unlock(&server->lock);
    atomic_store(&server->accepting, true);
    return gci_accept_post_all(server);
}

void gci_server_call_gone(grpc_c_server *server)
{
    if (atomic_fetch_sub(&server->live, 1) == 1) {
        pthread_mutex_lock(&server->lock);
        pthread_cond_broadcast(&server->changed);
        pthread_mutex_unlock(&server->lock);
    }
}

static bool has_no_calls(const grpc_c_server *server)
{
    return atomic_load(&server->live) == 0;
}

static bool is_idle(const grpc_c_server *server)
{
    return server->notified && has_no_calls(server);
}

/* Waits for a condition, at most `ms`; -1: as long as it takes. Under the lock. */
static bool wait_until(grpc_c_server *server, bool (*holds)(const grpc_c_server *), int64_t ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (!holds(server)) {
        int rc = ms < 0 ? pthread_cond_wait(&server->changed, &server->lock)
                        : pthread_cond_timedwait(&server->changed, &server->lock, &until);
        if (rc == ETIMEDOUT) {
            return holds(server);
        }
    }
    return true;
}

/* A server that was never started has nobody to take core's notification but this thread. */
static void poll_until_notified(grpc_c_server *server)
{
    while (!server->notified && gci_round_take(&server->queues[0].poller)) {
    }
}

/* Says which handlers keep the server from stopping. */
static void await_handlers(grpc_c_server *server)
{
    bool over;

    pthread_mutex_lock(&server->lock);
    over = wait_until(server, has_no_calls, server->options.forgotten_ms);
    pthread_mutex_unlock(&server->lock);
    if (!over) {
        (void)grpc_c_server_report(server, 0);
    }
}

/*
 * Core notifies when the last connection has gone, and some clients hold on to an idle one for
 * seconds: once the last call is over they get a moment to leave, then they are cut off.
 */
static unsigned drain(grpc_c_server *server, unsigned drain_ms)
{
    unsigned cancelled = 0;

    if (!server->queues[0].poller.running) {
        poll_until_notified(server);
    }
    pthread_mutex_lock(&server->lock);
    if (!wait_until(server, has_no_calls, drain_ms) ||
        !wait_until(server, is_idle, drain_ms < LEAVE_MS ? drain_ms : LEAVE_MS)) {
        cancelled = atomic_load(&server->open);
        pthread_mutex_unlock(&server->lock);
        grpc_server_cancel_all_calls(server->core);
        await_handlers(server);
        pthread_mutex_lock(&server->lock);
        (void)wait_until(server, is_idle, -1);
    }
    server->state = GCI_STOPPED;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    return cancelled;
}

unsigned grpc_c_server_shutdown(grpc_c_server *server, unsigned drain_ms)
{
    pthread_mutex_lock(&server->lock);
    if (server->state >= GCI_STOPPING) {
        pthread_mutex_unlock(&server->lock);
        return 0;
    }
    server->state = GCI_STOPPING;
    pthread_mutex_unlock(&server->lock);
    atomic_store(&server->accepting, false);
    atomic_store(&server->stopping, true);
    for (unsigned i = 1; i < server->options.pollers; i++) {
        gci_help_wake(&server->queues[i]);
    }
    gci_listener_stop(server->listener);
    grpc_server_shutdown_and_notify(server->core, server->queues[0].poller.queue,
                                    gci_tag_arm(&server->shutdown_tag));
    return drain(server, drain_ms);
}

void grpc_c_server_wait(grpc_c_server *server)
{
    pthread_mutex_lock(&server->lock);
    while (server->state != GCI_STOPPED) {
        pthread_cond_wait(&server->changed, &server->lock);
    }
    pthread_mutex_unlock(&server->lock);
}

/* The order is the one that was found clean: core's server before its queues, see MANUAL.md. */
void grpc_c_server_destroy(grpc_c_server *server)
{
    if (server == NULL) {
        return;
    }
    (void)grpc_c_server_shutdown(server, 0);
    grpc_c_server_wait(server);
    grpc_server_destroy(server->core);
    for (unsigned i = 0; i < server->options.pollers; i++) {
        gci_poller_fini(&server->queues[i].poller);
    }
    gci_pool_destroy(server->pool);
    for (unsigned i = 0; i < server->options.pollers; i++) {
        gci_help_fini(&server->queues[i]);
        gci_call_free_spares(&server->queues[i]);
    }
    for (size_t i = 0; i < server->n_methods; i++) {
        gci_slots_forget(&server->methods[i].slots);
    }
    gci_slots_forget(&server->unknown.slots);
    gci_server_tls_destroy_all(server->tls);
    gci_listener_destroy(server->listener);
    grpc_resource_quota_unref(server->quota);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    free(server->methods);
    free(server->queues);
    free(server);
    gci_library_release();
}
