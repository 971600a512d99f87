#include "config.h"

#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define MIB              (1ull << 20)
#define SEGMENT_MB_MAX   (1u << 20)
#define PAYLOAD_MB_MAX   2047u
#define RESERVE_MB_MAX   (1u << 20)
#define PACE_MB_MAX      (1u << 20)
#define THREADS_MAX      64u
#define DRAIN_MAX        3600u
#define PORT_MAX         65535u
#define FIRST_OPTION_KEY 0x100 /* above every character: no setting has a short flag */

const char psd_version[] = PAYLOADSTORED_VERSION;

/* What comes of applying a value. */
enum outcome { TAKEN, REFUSED, OUT_OF_MEMORY };

struct setting {
    const char *flag;
    const char *variable;
    const char *fallback_variable; /* read where `variable` is unset; NULL: none */
    const char *argument;          /* what --help calls the value */
    const char *value;             /* the default; NULL: none */
    const char *help;
    const char *expected; /* ends the message about a bad value: "expected ..." */
    enum outcome (*set)(struct psd_config *config, const char *value);
    enum outcome (*set_variable)(struct psd_config *config, const char *value); /* NULL: `set` */
};

/* -- values ------------------------------------------------------------------------------------ */

/* Digits alone, within bounds. */
static bool parse_number(const char *text, uint32_t least, uint32_t most, uint32_t *number)
{
    uint64_t value = 0;

    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(*text - '0');
        if (value > most) {
            return false;
        }
    }
    *number = (uint32_t)value;
    return value >= least;
}

/* The index of a word in a list that ends with NULL, or -1. */
static int parse_word(const char *text, const char *const *words)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(text, words[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static bool is_host(const char *host, size_t length)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    static const char ipv6[] = "0123456789abcdefABCDEF:.%";

    if (length > 2 && host[0] == '[' && host[length - 1] == ']') {
        return strspn(host + 1, ipv6) == length - 2;
    }
    return length > 0 && strspn(host, name) == length;
}

static bool is_address(const char *text)
{
    const char *colon = strrchr(text, ':');
    uint32_t port;

    if (strncmp(text, "unix:", 5) == 0) {
        size_t length = strlen(text + 5);

        return length > 0 && length < sizeof((struct sockaddr_un *)NULL)->sun_path;
    }
    return colon != NULL && is_host(text, (size_t)(colon - text)) &&
           parse_number(colon + 1, 0, PORT_MAX, &port);
}

/* -- settings ---------------------------------------------------------------------------------- */

static enum outcome add_listen(struct psd_config *config, const char *address, size_t length)
{
    char **listen = realloc(config->listen, (config->n_listen + 1) * sizeof *listen);

    if (listen == NULL) {
        return OUT_OF_MEMORY;
    }
    config->listen = listen;
    listen[config->n_listen] = strndup(address, length);
    if (listen[config->n_listen] == NULL) {
        return OUT_OF_MEMORY;
    }
    return is_address(listen[config->n_listen++]) ? TAKEN : REFUSED;
}

static enum outcome set_listen(struct psd_config *config, const char *value)
{
    return add_listen(config, value, strlen(value));
}

static enum outcome set_listen_list(struct psd_config *config, const char *value)
{
    enum outcome outcome;
    size_t length;

    for (;; value += length + 1) {
        length = strcspn(value, ",");
        outcome = add_listen(config, value, length);
        if (outcome != TAKEN || value[length] == '\0') {
            return outcome;
        }
    }
}

static enum outcome set_path(char **path, const char *value)
{
    if (*value == '\0') {
        return REFUSED;
    }
    free(*path);
    *path = strdup(value);
    return *path != NULL ? TAKEN : OUT_OF_MEMORY;
}

static enum outcome set_tls_cert(struct psd_config *config, const char *value)
{
    return set_path(&config->tls_cert, value);
}

static enum outcome set_tls_key(struct psd_config *config, const char *value)
{
    return set_path(&config->tls_key, value);
}

static enum outcome set_tls_client_ca(struct psd_config *config, const char *value)
{
    return set_path(&config->tls_client_ca, value);
}

static enum outcome set_data_dir(struct psd_config *config, const char *value)
{
    return set_path(&config->data_dir, value);
}

static enum outcome set_segment_max(struct psd_config *config, const char *value)
{
    uint32_t number;

    if (!parse_number(value, 1, SEGMENT_MB_MAX, &number)) {
        return REFUSED;
    }
    config->segment_max_bytes = number * MIB;
    return TAKEN;
}

static enum outcome set_payload_max(struct psd_config *config, const char *value)
{
    uint32_t number;

    if (!parse_number(value, 1, PAYLOAD_MB_MAX, &number)) {
        return REFUSED;
    }
    config->payload_max_bytes = (uint32_t)(number * MIB);
    return TAKEN;
}

static enum outcome set_durability(struct psd_config *config, const char *value)
{
    static const char *const words[] = {"buffered", "synced", NULL};
    static const enum pls_durability values[] = {PLS_BUFFERED, PLS_SYNCED};
    int word = parse_word(value, words);

    if (word < 0) {
        return REFUSED;
    }
    config->durability = values[word];
    return TAKEN;
}

static enum outcome set_reserve(struct psd_config *config, const char *value)
{
    uint32_t number;

    if (strcmp(value, "auto") == 0) {
        config->reserve_bytes = 0;
        return TAKEN;
    }
    if (!parse_number(value, 0, RESERVE_MB_MAX, &number)) {
        return REFUSED;
    }
    config->reserve_bytes = number > 0 ? number * MIB : PLS_RESERVE_NONE;
    return TAKEN;
}

static enum outcome set_compaction_pace(struct psd_config *config, const char *value)
{
    uint32_t number;

    if (!parse_number(value, 0, PACE_MB_MAX, &number)) {
        return REFUSED;
    }
    config->compaction_max_bytes_per_second = number * MIB;
    return TAKEN;
}

static enum outcome set_threads(struct psd_config *config, const char *value)
{
    return parse_number(value, 1, THREADS_MAX, &config->threads) ? TAKEN : REFUSED;
}

static enum outcome set_drain(struct psd_config *config, const char *value)
{
    return parse_number(value, 0, DRAIN_MAX, &config->drain_seconds) ? TAKEN : REFUSED;
}

static enum outcome set_log_level(struct psd_config *config, const char *value)
{
    static const char *const words[] = {"debug", "info", "warning", "error", NULL};
    static const enum psd_log_level values[] = {PSD_LOG_DEBUG, PSD_LOG_INFO, PSD_LOG_WARNING,
                                                PSD_LOG_ERROR};
    int word = parse_word(value, words);

    if (word < 0) {
        return REFUSED;
    }
    config->log_level = values[word];
    return TAKEN;
}

static enum outcome set_log_format(struct psd_config *config, const char *value)
{
    static const char *const words[] = {"text", "json", NULL};
    static const enum psd_log_format values[] = {PSD_LOG_FORMAT_TEXT, PSD_LOG_FORMAT_JSON};
    int word = parse_word(value, words);

    if (word < 0) {
        return REFUSED;
    }
    config->log_format = values[word];
    return TAKEN;
}

/* The numbers in the texts are those of the macros above. */
static const struct setting settings[] = {
    {
        .flag = "listen",
        .variable = "PAYLOADSTORE_LISTEN",
        .argument = "ADDRESS",
        .value = "127.0.0.1:50051",
        .help = "Serve on ADDRESS, host:port (port 0: any free one) or unix:path; may be given "
                "more than once, and the variable may hold several with commas between.",
        .expected = "host:port with a port from 0 to 65535 and IPv6 in [brackets], or unix:path",
        .set = set_listen,
        .set_variable = set_listen_list,
    },
    {
        .flag = "tls-cert",
        .variable = "PAYLOADSTORE_TLS_CERT",
        .argument = "FILE",
        .help = "Serve TLS on every host:port, with the certificate in FILE (PEM; those between it "
                "and its authority's follow it); unix: stays plaintext. Read anew where changed.",
        .expected = "the path of a file",
        .set = set_tls_cert,
    },
    {
        .flag = "tls-key",
        .variable = "PAYLOADSTORE_TLS_KEY",
        .argument = "FILE",
        .help = "The private key to --tls-cert (PEM, without a passphrase).",
        .expected = "the path of a file",
        .set = set_tls_key,
    },
    {
        .flag = "tls-client-ca",
        .variable = "PAYLOADSTORE_TLS_CLIENT_CA",
        .argument = "FILE",
        .help = "With --tls-cert: take only clients with a certificate that an authority in FILE "
                "(PEM) has signed.",
        .expected = "the path of a file",
        .set = set_tls_client_ca,
    },
    {
        .flag = "data-dir",
        .variable = "PAYLOADSTORE_DATA_DIR",
        .argument = "PATH",
        .value = "./payloads",
        .help = "Keep the stores under PATH, made where it is missing.",
        .expected = "the path of a directory",
        .set = set_data_dir,
    },
    {
        .flag = "segment-max-mb",
        .variable = "PAYLOADSTORE_SEGMENT_MAX_MB",
        .fallback_variable = "QRUSTY_SEGMENT_MAX_MB",
        .argument = "MIB",
        .value = "256",
        .help = "Start a new segment file once one is larger than this. Where neither is set, "
                "QRUSTY_SEGMENT_MAX_MB counts.",
        .expected = "a whole number of MiB from 1 to 1048576",
        .set = set_segment_max,
    },
    {
        .flag = "max-payload-mb",
        .variable = "PAYLOADSTORE_MAX_PAYLOAD_MB",
        .argument = "MIB",
        .value = "64",
        .help = "Refuse payloads larger than this.",
        .expected = "a whole number of MiB from 1 to 2047",
        .set = set_payload_max,
    },
    {
        .flag = "durability",
        .variable = "PAYLOADSTORE_DURABILITY",
        .argument = "LEVEL",
        .value = "synced",
        .help = "What an append survives that does not say itself: synced, a loss of power, or "
                "buffered, the end of this process.",
        .expected = "synced or buffered",
        .set = set_durability,
    },
    {
        .flag = "reserve-mb",
        .variable = "PAYLOADSTORE_RESERVE_MB",
        .argument = "MIB",
        .value = "auto",
        .help = "Stop appends while the file system has no more free than this, which compaction "
                "may use; 0: never, auto: 512, or 5 % of the file system where that is less.",
        .expected = "auto, or a whole number of MiB from 0 to 1048576",
        .set = set_reserve,
    },
    {
        .flag = "compaction-max-mb-per-second",
        .variable = "PAYLOADSTORE_COMPACTION_MAX_MB_PER_SECOND",
        .argument = "MIB",
        .value = "0",
        .help = "Let compactions, all stores' together, copy no more than this a second; 0: as "
                "fast as the disk goes.",
        .expected = "a whole number of MiB a second from 0 to 1048576",
        .set = set_compaction_pace,
    },
    {
        .flag = "threads",
        .variable = "PAYLOADSTORE_THREADS",
        .argument = "COUNT",
        .value = "2",
        .help = "Poll the network and take calls with this many threads. One does it alone as long "
                "as it can; the others sleep until it is busy with several connections.",
        .expected = "a whole number from 1 to 64",
        .set = set_threads,
    },
    {
        .flag = "drain-seconds",
        .variable = "PAYLOADSTORE_DRAIN_SECONDS",
        .argument = "SEC",
        .value = "10",
        .help = "When told to stop, let running calls finish for this long.",
        .expected = "a whole number of seconds from 0 to 3600",
        .set = set_drain,
    },
    {
        .flag = "log-level",
        .variable = "PAYLOADSTORE_LOG_LEVEL",
        .argument = "LEVEL",
        .value = "info",
        .help = "Leave out less important events than debug, info, warning or error.",
        .expected = "debug, info, warning or error",
        .set = set_log_level,
    },
    {
        .flag = "log-format",
        .variable = "PAYLOADSTORE_LOG_FORMAT",
        .argument = "FORMAT",
        .value = "text",
        .help = "Log as text or json, one line an event.",
        .expected = "text or json",
        .set = set_log_format,
    },
};

#define N_SETTINGS (sizeof settings / sizeof settings[0])

static const char description[] =
    "Serves payload stores over gRPC: append a payload, keep the small reference that comes back, "
    "read the payload by it."
    "\v"
    "Each flag may also be set by the environment variable in brackets; the flag wins.";

/* What argp hands to parse_option. */
struct parse {
    struct psd_config *config;
    bool given[N_SETTINGS]; /* as a flag */
};

/* -- parsing ----------------------------------------------------------------------------------- */

/* `name` is the flag or variable as the user knows it. Does not return if the value is bad. */
static void apply(struct argp_state *state, const char *name, const struct setting *setting,
                  enum outcome outcome, const char *value)
{
    char shown[200];

    switch (outcome) {
    case TAKEN:
        break;
    case REFUSED:
        psd_log_escape(shown, sizeof shown, value);
        argp_error(state, "%s: \"%s\" is not accepted, expected %s", name, shown,
                   setting->expected);
        break;
    case OUT_OF_MEMORY:
        argp_failure(state, EXIT_FAILURE, ENOMEM, "%s", name);
        break;
    }
}

static void apply_flag(struct argp_state *state, size_t i, const char *value)
{
    struct parse *parse = state->input;
    char name[40];

    snprintf(name, sizeof name, "--%s", settings[i].flag);
    parse->given[i] = true;
    apply(state, name, &settings[i], settings[i].set(parse->config, value), value);
}

/* The variable's value, NULL where it is unset or empty. */
static const char *variable(const char *name)
{
    const char *value = name != NULL ? getenv(name) : NULL;

    return value != NULL && *value != '\0' ? value : NULL;
}

/* Sets what no flag has set: from its variable, or to its default. */
static void apply_variable(struct argp_state *state, const struct setting *setting)
{
    struct psd_config *config = ((struct parse *)state->input)->config;
    const char *name = setting->variable;
    const char *value = variable(name);

    if (value == NULL) {
        name = setting->fallback_variable;
        value = variable(name);
    }
    if (value == NULL) {
        if (setting->value != NULL) {
            apply(state, setting->flag, setting, setting->set(config, setting->value),
                  setting->value);
        }
    } else if (setting->set_variable != NULL) {
        apply(state, name, setting, setting->set_variable(config, value), value);
    } else {
        apply(state, name, setting, setting->set(config, value), value);
    }
}

/* What is set, by whichever way, and says nothing without something that is not. */
static void check_tls(struct argp_state *state, const struct psd_config *config)
{
    if ((config->tls_cert == NULL) != (config->tls_key == NULL)) {
        argp_error(state, "--tls-cert and --tls-key come together: --tls-%s is not set",
                   config->tls_cert == NULL ? "cert" : "key");
    }
    if (config->tls_client_ca != NULL && config->tls_cert == NULL) {
        argp_error(state, "--tls-client-ca asks clients for certificates, which takes TLS: "
                          "--tls-cert and --tls-key are not set");
    }
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    char shown[200];

    if (key >= FIRST_OPTION_KEY && key < FIRST_OPTION_KEY + (int)N_SETTINGS) {
        apply_flag(state, (size_t)(key - FIRST_OPTION_KEY), value);
        return 0;
    }
    switch (key) {
    case ARGP_KEY_ARG:
        psd_log_escape(shown, sizeof shown, value);
        argp_error(state, "unexpected argument \"%s\": everything is set by flags", shown);
        return 0;
    case ARGP_KEY_END:
        for (size_t i = 0; i < N_SETTINGS; i++) {
            if (!((struct parse *)state->input)->given[i]) {
                apply_variable(state, &settings[i]);
            }
        }
        check_tls(state, ((struct parse *)state->input)->config);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Adds default and variable to a flag's text in --help; argp frees what is returned. */
static char *complete_help(int key, const char *text, void *input)
{
    const struct setting *setting;
    char *complete = NULL;

    (void)input;
    if (key < FIRST_OPTION_KEY || key >= FIRST_OPTION_KEY + (int)N_SETTINGS) {
        return (char *)text;
    }
    setting = &settings[key - FIRST_OPTION_KEY];
    if (asprintf(&complete, "%s\n[%s] default: %s", text, setting->variable,
                 setting->value != NULL ? setting->value : "none") < 0) {
        return (char *)text;
    }
    return complete;
}

static void print_version(FILE *stream, struct argp_state *state)
{
    (void)state;
    fprintf(stream, "payloadstored %s\n", psd_version);
}

void psd_config_parse(struct psd_config *config, int argc, char **argv)
{
    struct argp_option options[N_SETTINGS + 1] = {{0}};
    struct argp argp = {.options = options,
                        .parser = parse_option,
                        .doc = description,
                        .help_filter = complete_help};
    struct parse parse = {.config = config};

    for (size_t i = 0; i < N_SETTINGS; i++) {
        options[i].name = settings[i].flag;
        options[i].key = FIRST_OPTION_KEY + (int)i;
        options[i].arg = settings[i].argument;
        options[i].doc = settings[i].help;
    }
    argp_program_version_hook = print_version;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &parse);
}

void psd_config_fini(struct psd_config *config)
{
    for (size_t i = 0; i < config->n_listen; i++) {
        free(config->listen[i]);
    }
    free(config->listen);
    free(config->tls_cert);
    free(config->tls_key);
    free(config->tls_client_ca);
    free(config->data_dir);
    *config = (struct psd_config){0};
}
