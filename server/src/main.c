/*
 * payloadstored's life: settings, data directory, services, listeners, a signal, and all of it
 * backwards.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <grpc-c/server.h>
#include <payloadstore/payloadstore.h>

#include "config.h"
#include "health.h"
#include "log.h"
#include "reflection.h"
#include "service.h"

#define ENVELOPE_BYTES   1024         /* what a request may hold beside its payload */
#define RECEIVE_LEAST    (4ull << 20) /* bytes; gRPC's default, for messages that hold no payload */
#define QUOTA_LEAST      (512ull << 20) /* bytes; the shim's default */
#define QUOTA_IN_FLIGHT  4 /* of the largest messages, received or being written at once */
#define STOP_MS_A_SECOND 1000u

static const char *const services[] = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "payloadstore.v1.PayloadStore",
};

/* -- the process ------------------------------------------------------------------------------- */

static void stop_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
}

/* Every connection and every segment takes a file descriptor. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Before there are threads: they inherit the mask, so that only wait_for_signal gets a signal. */
static void prepare_process(void)
{
    sigset_t set;

    raise_file_limit();
    signal(SIGPIPE, SIG_IGN);
    stop_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static int wait_for_signal(void)
{
    sigset_t set;
    int number = 0;

    stop_signals(&set);
    sigwait(&set, &number);
    return number;
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

/* -- what the libraries log -------------------------------------------------------------------- */

static void log_store_event(void *arg, enum pls_log_level level, const char *store,
                            const char *event, const char *text)
{
    static const enum psd_log_level levels[] = {
        [PLS_LOG_DEBUG] = PSD_LOG_DEBUG,
        [PLS_LOG_INFO] = PSD_LOG_INFO,
        [PLS_LOG_WARNING] = PSD_LOG_WARNING,
        [PLS_LOG_ERROR] = PSD_LOG_ERROR,
    };

    (void)arg;
    psd_log(levels[level], event, PSD_TEXT("store", store), PSD_TEXT("text", text));
}

/* gRPC calls an error what any peer can cause; none of it stops the server. */
static void log_grpc_line(enum grpc_c_log_level level, const char *line)
{
    psd_log(level == GRPC_C_LOG_ERROR ? PSD_LOG_WARNING : PSD_LOG_DEBUG, "grpc",
            PSD_TEXT("text", line));
}

/* -- starting ---------------------------------------------------------------------------------- */

static void log_failure(const char *what, const char *cause)
{
    psd_log(PSD_LOG_ERROR, "failed", PSD_TEXT("what", what), PSD_TEXT("cause", cause));
}

static pls_dir *open_dir(const struct psd_config *config)
{
    const struct pls_options options = {
        .segment_max_bytes = config->segment_max_bytes,
        .payload_max_bytes = config->payload_max_bytes,
        .reserve_bytes = config->reserve_bytes,
        .compaction_max_bytes_per_second = config->compaction_max_bytes_per_second,
        .log = log_store_event,
    };
    struct pls_error error = {0};
    pls_dir *dir = NULL;

    if (pls_dir_open(config->data_dir, &options, &dir, &error) != PLS_OK) {
        psd_log(PSD_LOG_ERROR, "failed", PSD_TEXT("what", "opening the data directory"),
                PSD_TEXT("data_dir", config->data_dir), PSD_TEXT("cause", error.text));
        return NULL;
    }
    return dir;
}

static grpc_c_server *create_server(const struct psd_config *config)
{
    size_t largest = (size_t)config->payload_max_bytes + ENVELOPE_BYTES;
    size_t receive_bytes = largest > RECEIVE_LEAST ? largest : RECEIVE_LEAST;
    const struct grpc_c_server_options options = {
        .pollers = config->threads,
        .max_receive_bytes = receive_bytes,
        .memory_quota_bytes = receive_bytes > QUOTA_LEAST / QUOTA_IN_FLIGHT
                                  ? receive_bytes * QUOTA_IN_FLIGHT
                                  : QUOTA_LEAST,
    };
    grpc_c_server *server = grpc_c_server_create(&options);

    if (server == NULL) {
        log_failure("making the server", "out of memory");
    }
    return server;
}

static bool register_services(grpc_c_server *server, struct psd_service *service,
                              struct psd_health *health, struct psd_reflection *reflection)
{
    if (psd_service_register(service, server) != 0 || psd_health_register(health, server) != 0 ||
        psd_reflection_register(reflection, server) != 0) {
        log_failure("adding the services", "out of memory");
        return false;
    }
    return true;
}

static bool is_unix(const char *address)
{
    return strncmp(address, "unix:", 5) == 0;
}

/* Logs the address with the port that it has got. */
static void log_listening(const char *address, int port, const char *security)
{
    char text[512];

    if (is_unix(address)) {
        snprintf(text, sizeof text, "%s", address);
    } else {
        snprintf(text, sizeof text, "%.*s:%d", (int)(strrchr(address, ':') - address), address,
                 port);
    }
    psd_log(PSD_LOG_INFO, "listening", PSD_TEXT("address", text), PSD_TEXT("security", security));
}

/* `arg` is the listener's address, as it was given. */
static void log_reloaded(void *arg, const char *cause)
{
    psd_log(cause == NULL ? PSD_LOG_INFO : PSD_LOG_WARNING, "certificates",
            PSD_TEXT("address", arg), PSD_TEXT("in_use", cause == NULL ? "new" : "old"),
            PSD_TEXT("cause", cause));
}

/* A socket file's permissions say who may connect to it; a port is everybody's. */
static bool listen_on(grpc_c_server *server, const struct psd_config *config, char *address)
{
    const struct grpc_c_server_tls tls = {
        .certificate_file = config->tls_cert,
        .key_file = config->tls_key,
        .client_ca_file = config->tls_client_ca,
        .reloaded = log_reloaded,
        .arg = address,
    };
    const char *security = "plaintext";
    char cause[512] = "";
    int port = 0;
    int rc;

    if (config->tls_cert == NULL || is_unix(address)) {
        rc = grpc_c_server_listen(server, address, &port, cause, sizeof cause);
    } else {
        security = config->tls_client_ca == NULL ? "tls" : "mutual-tls";
        rc = grpc_c_server_listen_tls(server, address, &tls, &port, cause, sizeof cause);
    }
    if (rc != 0) {
        psd_log(PSD_LOG_ERROR, "failed", PSD_TEXT("what", "listening"),
                PSD_TEXT("address", address), PSD_TEXT("cause", cause));
        return false;
    }
    log_listening(address, port, security);
    return true;
}

static bool listen_all(grpc_c_server *server, const struct psd_config *config)
{
    for (size_t i = 0; i < config->n_listen; i++) {
        if (!listen_on(server, config, config->listen[i])) {
            return false;
        }
    }
    return true;
}

static bool start_server(grpc_c_server *server, const struct psd_config *config)
{
    if (!listen_all(server, config)) {
        return false;
    }
    if (grpc_c_server_start(server) != 0) {
        log_failure("starting the server", "threads or memory ran out");
        return false;
    }
    psd_log(PSD_LOG_INFO, "started", PSD_TEXT("version", psd_version), PSD_NUMBER("pid", getpid()),
            PSD_TEXT("data_dir", config->data_dir));
    return true;
}

/* -- running and stopping ---------------------------------------------------------------------- */

/* Returns how many calls had to be cancelled. */
static unsigned serve_until_signal(grpc_c_server *server, struct psd_service *service,
                                   struct psd_health *health, const struct psd_config *config,
                                   struct timespec *stopping)
{
    int number;

    psd_health_set(health, true);
    number = wait_for_signal();
    clock_gettime(CLOCK_MONOTONIC, stopping);
    psd_log(PSD_LOG_INFO, "stopping", PSD_TEXT("signal", number == SIGTERM ? "SIGTERM" : "SIGINT"));
    psd_health_stop(health);
    psd_service_stop(service);
    return grpc_c_server_shutdown(server, config->drain_seconds * STOP_MS_A_SECOND);
}

/* Returns false where something answered as BUFFERED may not have reached the disk. */
static bool close_dir(pls_dir *dir)
{
    enum pls_code code = pls_dir_close(dir);

    if (code != PLS_OK) {
        log_failure("closing the data directory", pls_strerror(code));
    }
    return code == PLS_OK;
}

/* Returns the process's exit status. */
static int run(const struct psd_config *config)
{
    struct psd_service service = {.durability = config->durability,
                                  .payload_max_bytes = config->payload_max_bytes};
    struct psd_health *health = NULL;
    struct psd_reflection *reflection = NULL;
    grpc_c_server *server = NULL;
    struct timespec stopping = {0};
    unsigned cancelled = 0;
    bool served = false;

    service.dir = open_dir(config);
    if (service.dir == NULL) {
        return EXIT_FAILURE;
    }
    if (psd_service_init(&service) != 0) {
        log_failure("starting the service", "threads ran out");
        goto close_dir;
    }
    health = psd_health_create();
    reflection = psd_reflection_create(services, sizeof services / sizeof services[0]);
    if (health == NULL || reflection == NULL) {
        log_failure("making the services", "out of memory");
        goto destroy_services;
    }
    server = create_server(config);
    if (server == NULL) {
        goto destroy_services;
    }
    if (!register_services(server, &service, health, reflection) || !start_server(server, config)) {
        goto destroy_server;
    }
    cancelled = serve_until_signal(server, &service, health, config, &stopping);
    served = true;

destroy_server:
    grpc_c_server_destroy(server);
destroy_services:
    psd_reflection_destroy(reflection);
    psd_health_destroy(health);
    psd_service_fini(&service);
close_dir:
    if (!close_dir(service.dir) || !served) {
        return EXIT_FAILURE;
    }
    psd_log(PSD_LOG_INFO, "stopped", PSD_REAL("seconds", seconds_since(&stopping)),
            PSD_NUMBER("cancelled_calls", cancelled));
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct psd_config config = {0};
    struct psd_log_options log_options = {.fd = STDERR_FILENO};
    int status;

    psd_config_parse(&config, argc, argv);
    log_options.level = config.log_level;
    log_options.format = config.log_format;
    psd_log_init(&log_options);
    prepare_process();
    grpc_c_set_logger(log_grpc_line);
    status = run(&config);
    psd_config_fini(&config);
    return status;
}
