/*
 * TLS from files. Core asks for a server's files at each handshake, under a lock of that listener,
 * on the thread that polls: three calls of stat, and reading only where something has changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <grpc/support/alloc.h>

#include "core.h"
#include "tls.h"

#define FILE_MAX   ((off_t)4 << 20) /* more than any bundle of authorities has */
#define ERROR_SIZE 512

/* -- files ------------------------------------------------------------------------------------ */

static char *read_all(int fd, size_t size, const char *path, char *error, size_t error_size)
{
    char *text = malloc(size + 1);
    size_t have = 0;

    if (text == NULL) {
        (void)snprintf(error, error_size, "%s: out of memory", path);
        return NULL;
    }
    while (have < size) {
        ssize_t n = read(fd, text + have, size - have);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) { /* cut short meanwhile: what is there fails as it should, or is enough */
            break;
        }
        have += (size_t)n;
    }
    text[have] = '\0';
    return text;
}

/* The text of a file, freed with free; NULL with the cause. */
static char *read_file(const char *path, char *error, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    char *text = NULL;

    if (fd < 0 || fstat(fd, &st) != 0) {
        (void)snprintf(error, size, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        (void)snprintf(error, size, "%s: not a file", path);
    } else if (st.st_size > FILE_MAX) {
        (void)snprintf(error, size, "%s: larger than %d MiB", path, (int)(FILE_MAX >> 20));
    } else {
        text = read_all(fd, (size_t)st.st_size, path, error, size);
    }
    if (fd >= 0) {
        close(fd);
    }
    return text;
}

/* -- the server's side ------------------------------------------------------------------------ */

enum { CERTIFICATE, KEY, CLIENT_CA, N_FILES };

/* What tells one state of a file from the next. */
struct stamp {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct gci_server_tls {
    struct gci_server_tls *next;
    char *paths[N_FILES]; /* NULL: none */
    bool client_optional;
    void (*reloaded)(void *arg, const char *cause);
    void *arg;
    pthread_mutex_t lock; /* under core's own; guards what follows, looked at by each handshake */
    struct stamp stamps[N_FILES]; /* of what was handed over last */
    bool known;                   /* something was */
    char cause[ERROR_SIZE];       /* why changed files are not in use, as reported last */
};

static void destroy_one(struct gci_server_tls *tls)
{
    for (size_t i = 0; i < N_FILES; i++) {
        free(tls->paths[i]);
    }
    pthread_mutex_destroy(&tls->lock);
    free(tls);
}

void gci_server_tls_destroy_all(struct gci_server_tls *list)
{
    while (list != NULL) {
        struct gci_server_tls *next = list->next;
        destroy_one(list);
        list = next;
    }
}

void gci_server_tls_push(struct gci_server_tls **list, struct gci_server_tls *tls)
{
    tls->next = *list;
    *list = tls;
}

static bool take_stamps(const struct gci_server_tls *tls, struct stamp stamps[N_FILES], char *error,
                        size_t size)
{
    memset(stamps, 0, N_FILES * sizeof(*stamps)); /* padding, too: they are compared as memory */
    for (size_t i = 0; i < N_FILES; i++) {
        struct stat st;
        if (tls->paths[i] == NULL) {
            continue;
        }
        if (stat(tls->paths[i], &st) != 0) {
            (void)snprintf(error, size, "%s: %s", tls->paths[i], strerror(errno));
            return false;
        }
        stamps[i].device = st.st_dev;
        stamps[i].inode = st.st_ino;
        stamps[i].size = st.st_size;
        stamps[i].changed = st.st_ctim;
    }
    return true;
}

static bool check_texts(const struct gci_server_tls *tls, char *const texts[N_FILES], char *error,
                        size_t size)
{
    const struct gci_tls_pair pair = {tls->paths[CERTIFICATE], texts[CERTIFICATE], tls->paths[KEY],
                                      texts[KEY]};

    return gci_tls_check_pair(&pair, error, size) &&
           (texts[CLIENT_CA] == NULL ||
            gci_tls_check_authorities(tls->paths[CLIENT_CA], texts[CLIENT_CA], error, size));
}

/*
 * Core asserts that there are authorities for clients also where clients are not asked for a
 * certificate: the server's own does for a placeholder, which is not looked at then.
 */
static grpc_ssl_server_certificate_config *load(const struct gci_server_tls *tls, char *error,
                                                size_t size)
{
    grpc_ssl_server_certificate_config *config = NULL;
    char *texts[N_FILES] = {NULL};
    bool complete = true;

    for (size_t i = 0; i < N_FILES && complete; i++) {
        if (tls->paths[i] != NULL) {
            texts[i] = read_file(tls->paths[i], error, size);
            complete = texts[i] != NULL;
        }
    }
    if (complete && check_texts(tls, texts, error, size)) {
        grpc_ssl_pem_key_cert_pair pair = {texts[KEY], texts[CERTIFICATE]};
        const char *roots = texts[CLIENT_CA] != NULL ? texts[CLIENT_CA] : texts[CERTIFICATE];
        config = grpc_ssl_server_certificate_config_create(roots, &pair, 1);
    }
    for (size_t i = 0; i < N_FILES; i++) {
        free(texts[i]);
    }
    return config;
}

static void report(const struct gci_server_tls *tls, const char *cause)
{
    if (tls->reloaded != NULL) {
        tls->reloaded(tls->arg, cause);
    } else if (cause == NULL) {
        gci_log(GRPC_C_LOG_INFO, "TLS: %s: read anew", tls->paths[CERTIFICATE]);
    } else {
        gci_log(GRPC_C_LOG_ERROR, "TLS: %s; the last good files stay in use", cause);
    }
}

/* "Unchanged" has core go on with what it has, as "failed" has, and logs nothing at each handshake.
 */
static grpc_ssl_certificate_config_reload_status keep(struct gci_server_tls *tls, const char *cause)
{
    if (!tls->known) {
        gci_log(GRPC_C_LOG_ERROR, "TLS: %s", cause);
        return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_FAIL;
    }
    if (strcmp(tls->cause, cause) != 0) {
        (void)snprintf(tls->cause, sizeof(tls->cause), "%s", cause);
        report(tls, cause);
    }
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
}

/* The stamps are taken before the files are read: what changes in between is seen next time. */
static grpc_ssl_certificate_config_reload_status
look_again(struct gci_server_tls *tls, grpc_ssl_server_certificate_config **config)
{
    struct stamp stamps[N_FILES];
    char error[ERROR_SIZE];

    if (!take_stamps(tls, stamps, error, sizeof(error))) {
        return keep(tls, error);
    }
    if (tls->known && memcmp(tls->stamps, stamps, sizeof(stamps)) == 0) {
        tls->cause[0] = '\0'; /* those in use are back */
        return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    }
    *config = load(tls, error, sizeof(error));
    if (*config == NULL) {
        return keep(tls, error);
    }
    memcpy(tls->stamps, stamps, sizeof(stamps));
    tls->cause[0] = '\0';
    if (tls->known) {
        report(tls, NULL);
    }
    tls->known = true;
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

static grpc_ssl_certificate_config_reload_status fetch(void *data,
                                                       grpc_ssl_server_certificate_config **config)
{
    struct gci_server_tls *tls = data;
    grpc_ssl_certificate_config_reload_status status;

    pthread_mutex_lock(&tls->lock);
    status = look_again(tls, config);
    pthread_mutex_unlock(&tls->lock);
    return status;
}

static bool copy_path(char **to, const char *path)
{
    *to = path == NULL ? NULL : strdup(path);
    return path == NULL || *to != NULL;
}

struct gci_server_tls *gci_server_tls_create(const struct grpc_c_server_tls *tls, char *error,
                                             size_t size)
{
    struct gci_server_tls *files;
    grpc_ssl_server_certificate_config *config;

    if (tls->certificate_file == NULL || tls->key_file == NULL) {
        (void)snprintf(error, size, "a server's TLS takes a certificate and its key");
        return NULL;
    }
    files = calloc(1, sizeof(*files));
    if (files == NULL) {
        (void)snprintf(error, size, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&files->lock, NULL);
    if (!copy_path(&files->paths[CERTIFICATE], tls->certificate_file) ||
        !copy_path(&files->paths[KEY], tls->key_file) ||
        !copy_path(&files->paths[CLIENT_CA], tls->client_ca_file)) {
        (void)snprintf(error, size, "out of memory");
        destroy_one(files);
        return NULL;
    }
    files->client_optional = tls->client_optional;
    files->reloaded = tls->reloaded;
    files->arg = tls->arg;
    config = load(files, error, size); /* core's own words at a failure name no file */
    if (config == NULL) {
        destroy_one(files);
        return NULL;
    }
    grpc_ssl_server_certificate_config_destroy(config);
    return files;
}

grpc_server_credentials *gci_server_tls_credentials(struct gci_server_tls *tls)
{
    grpc_ssl_client_certificate_request_type wanted =
        tls->paths[CLIENT_CA] == NULL ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
        : tls->client_optional        ? GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY
                                      : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;

    return grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(wanted, fetch, tls));
}

/* -- the client's side ------------------------------------------------------------------------ */

/* The texts of a client's files; NULL where there is no path. */
struct texts {
    char *ca;
    char *certificate;
    char *key;
};

static void free_texts(struct texts *texts)
{
    free(texts->ca);
    free(texts->certificate);
    free(texts->key);
}

static bool read_given(const char *path, char **text, char *error, size_t size)
{
    *text = path == NULL ? NULL : read_file(path, error, size);
    return path == NULL || *text != NULL;
}

/* To be freed also where it returns false. */
static bool read_texts(const struct grpc_c_channel_tls *tls, struct texts *texts, char *error,
                       size_t size)
{
    *texts = (struct texts){NULL};
    if ((tls->certificate_file == NULL) != (tls->key_file == NULL)) {
        (void)snprintf(error, size, "a certificate and its key come together");
        return false;
    }
    if (!read_given(tls->ca_file, &texts->ca, error, size) ||
        !read_given(tls->certificate_file, &texts->certificate, error, size) ||
        !read_given(tls->key_file, &texts->key, error, size)) {
        return false;
    }
    const struct gci_tls_pair pair = {tls->certificate_file, texts->certificate, tls->key_file,
                                      texts->key};
    return (texts->ca == NULL || gci_tls_check_authorities(tls->ca_file, texts->ca, error, size)) &&
           (texts->key == NULL || gci_tls_check_pair(&pair, error, size));
}

int grpc_c_channel_tls_check(const struct grpc_c_channel_tls *tls, char *error, size_t size)
{
    struct texts texts;
    bool good = read_texts(tls, &texts, error, size);

    free_texts(&texts);
    return good ? 0 : -1;
}

grpc_channel_credentials *gci_channel_tls_credentials(const struct grpc_c_channel_tls *tls)
{
    grpc_channel_credentials *credentials = NULL;
    char error[ERROR_SIZE];
    struct texts texts;

    if (read_texts(tls, &texts, error, sizeof(error))) {
        grpc_ssl_pem_key_cert_pair pair = {texts.key, texts.certificate};
        credentials = grpc_ssl_credentials_create_ex(
            texts.ca, texts.certificate == NULL ? NULL : &pair, NULL, NULL);
    } else {
        gci_log(GRPC_C_LOG_ERROR, "TLS: %s", error);
    }
    free_texts(&texts);
    return credentials;
}

/* -- who a peer is ---------------------------------------------------------------------------- */

/* Adds up the properties of a name; with `identity`, copies each to *at, which moves on. */
static size_t each_name(const grpc_auth_context *context, struct grpc_c_identity *identity,
                        char **at, size_t *bytes)
{
    grpc_auth_property_iterator i =
        grpc_auth_context_find_properties_by_name(context, GRPC_X509_SAN_PROPERTY_NAME);
    const grpc_auth_property *property;
    size_t n = 0;

    while ((property = grpc_auth_property_iterator_next(&i)) != NULL) {
        if (identity != NULL) {
            identity->names[n] = memcpy(*at, property->value, property->value_length);
            *at += property->value_length + 1;
        }
        *bytes += property->value_length + 1;
        n++;
    }
    return n;
}

static const grpc_auth_property *first(const grpc_auth_context *context, const char *name)
{
    grpc_auth_property_iterator i = grpc_auth_context_find_properties_by_name(context, name);

    return grpc_auth_property_iterator_next(&i);
}

static const char *copy(char **at, const grpc_auth_property *property)
{
    char *start = *at;

    if (property == NULL) {
        return NULL;
    }
    memcpy(start, property->value, property->value_length);
    *at += property->value_length + 1;
    return start;
}

static struct grpc_c_identity *copy_identity(const grpc_auth_context *context)
{
    const grpc_auth_property *subject = first(context, GRPC_X509_SUBJECT_PROPERTY_NAME);
    const grpc_auth_property *common_name = first(context, GRPC_X509_CN_PROPERTY_NAME);
    struct grpc_c_identity *identity;
    size_t bytes = 0;
    size_t n = each_name(context, NULL, NULL, &bytes);
    char *at;

    bytes += subject == NULL ? 0 : subject->value_length + 1;
    bytes += common_name == NULL ? 0 : common_name->value_length + 1;
    identity = gpr_zalloc(sizeof(*identity) + n * sizeof(char *) + bytes); /* NULs included */
    identity->names = (const char **)(identity + 1);
    identity->n_names = n;
    at = (char *)(identity->names + n);
    (void)each_name(context, identity, &at, &bytes);
    identity->subject = copy(&at, subject);
    identity->common_name = copy(&at, common_name);
    return identity;
}

struct grpc_c_identity *gci_identity(grpc_call *core)
{
    grpc_auth_context *context = grpc_call_auth_context(core);
    struct grpc_c_identity *identity = NULL;

    if (context != NULL && grpc_auth_context_peer_is_authenticated(context) != 0) {
        identity = copy_identity(context);
    }
    grpc_auth_context_release(context);
    return identity;
}
