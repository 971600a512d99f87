/*
 * The server's log: one line an event on standard error, for people or as JSON.
 *
 *   2026-11-22T15:04:05.123Z info  listening address=127.0.0.1:50051
 *   {"time":"2026-11-22T15:04:05.123Z","level":"info","event":"listening","address":"127.0.0.1:50051"}
 *
 * A call site names the event, a word a program can look for, and its fields:
 *
 *   psd_log(PSD_LOG_INFO, "listening", PSD_TEXT("address", address));
 *
 * Threads: any, after psd_log_init. A line is one writev(2), so lines do not mix. What a field
 * holds cannot end the line or begin another: control characters and bytes that are not UTF-8 come
 * out escaped or replaced. A value is cut after PSD_LOG_VALUE_MAX bytes. A line that cannot be
 * written is dropped.
 */
#ifndef PAYLOADSTORED_LOG_H
#define PAYLOADSTORED_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PSD_LOG_VALUE_MAX 1024 /* bytes of a text field */

enum psd_log_level { PSD_LOG_DEBUG, PSD_LOG_INFO, PSD_LOG_WARNING, PSD_LOG_ERROR };

enum psd_log_format { PSD_LOG_FORMAT_TEXT, PSD_LOG_FORMAT_JSON };

struct psd_log_options {
    enum psd_log_level level; /* less important events are left out */
    enum psd_log_format format;
    int fd; /* where lines go; borrowed */
};

/* Before other threads run. Until then events of level info and above go to standard error. */
void psd_log_init(const struct psd_log_options *options);

/* For call sites that would have to work to make a field's value. */
bool psd_log_enabled(enum psd_log_level level);

enum psd_field_kind { PSD_FIELD_TEXT, PSD_FIELD_NUMBER, PSD_FIELD_REAL };

struct psd_field {
    const char *key; /* a word: a-z, 0-9, _ */
    enum psd_field_kind kind;
    union {
        const char *text; /* NULL: the field is left out */
        int64_t number;
        double real; /* written with three decimals */
    } value;
};

/* Fields, for psd_log's arguments. A text is borrowed for the call. */
#define PSD_TEXT(k, v) ((struct psd_field){.key = (k), .kind = PSD_FIELD_TEXT, .value.text = (v)})
#define PSD_NUMBER(k, v) \
    ((struct psd_field){.key = (k), .kind = PSD_FIELD_NUMBER, .value.number = (int64_t)(v)})
#define PSD_REAL(k, v) ((struct psd_field){.key = (k), .kind = PSD_FIELD_REAL, .value.real = (v)})
#define PSD_FIELDS_END ((struct psd_field){.key = NULL})

/* psd_log(level, event, field...): any number of fields, also none. */
#define psd_log(level, event, ...)                                                                \
    psd_log_fields((level), (const struct psd_field[]){PSD_TEXT("event", (event)), ##__VA_ARGS__, \
                                                       PSD_FIELDS_END})

/* What psd_log calls: `fields` begins with the event and ends with PSD_FIELDS_END. */
void psd_log_fields(enum psd_log_level level, const struct psd_field *fields);

/*
 * Writes `text` to `out` (bytes `size`, at least 1, always terminated; what does not fit is left
 * out) in a form that is one line of valid UTF-8: backslashes, control characters, characters that
 * turn the direction of text, and bytes that are not UTF-8 come out as backslash escapes. For
 * messages on a terminal that repeat what somebody typed.
 */
void psd_log_escape(char *out, size_t size, const char *text);

#endif
