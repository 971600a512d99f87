#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

/* PIPE_BUF: up to this length a write to a pipe cannot be torn by another thread's. */
#define TEXT_LINE_MAX 4096

/* Set once, before there are threads. */
static struct psd_log_options log_options = {
    .level = PSD_LOG_INFO,
    .format = PSD_LOG_FORMAT_TEXT,
    .fd = STDERR_FILENO,
};

static const char *const level_names[] = {
    [PSD_LOG_DEBUG] = "debug",
    [PSD_LOG_INFO] = "info",
    [PSD_LOG_WARNING] = "warning",
    [PSD_LOG_ERROR] = "error",
};

/* A line as it grows, without its newline. What does not fit is left out. */
struct line {
    char bytes[TEXT_LINE_MAX];
    size_t length;
};

void psd_log_init(const struct psd_log_options *options)
{
    log_options = *options;
}

bool psd_log_enabled(enum psd_log_level level)
{
    return level >= log_options.level;
}

/* -- characters -------------------------------------------------------------------------------- */

/*
 * Decodes the UTF-8 character at `text`, of which `length` > 0 bytes are left. Returns its length
 * in bytes, or 0 where the bytes are not UTF-8: cut off, overlong, a surrogate, above U+10FFFF.
 */
static size_t decode(const char *text, size_t length, uint32_t *character)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t first = (uint8_t)text[0];
    size_t size = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

    if (size == 0 || size > length || first > 0xf4) {
        return 0;
    }
    *character = size == 1 ? first : first & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if (((uint8_t)text[i] & 0xc0) != 0x80) {
            return 0;
        }
        *character = *character << 6 | ((uint8_t)text[i] & 0x3f);
    }
    if (*character < least[size] || *character > 0x10ffff ||
        (*character >= 0xd800 && *character <= 0xdfff)) {
        return 0;
    }
    return size;
}

/* Whether a character may stand in a line as it is: it shows, and changes nothing around it. */
static bool is_plain(uint32_t character)
{
    return character >= 0x20 && (character < 0x7f || character > 0x9f) && /* controls */
           (character < 0x200e || character > 0x200f) &&                  /* direction marks */
           (character < 0x2028 || character > 0x202e) && /* line separators, direction */
           (character < 0x2066 || character > 0x2069);   /* direction isolates */
}

/* How many bytes at `text` are one character to be kept together; at least 1. */
static size_t step(const char *text, size_t length, bool *plain)
{
    uint32_t character = 0;
    size_t size = decode(text, length, &character);

    *plain = size > 0 && is_plain(character);
    return size > 0 ? size : 1;
}

/* The longest beginning of `text` that is within the limit and cuts no character. */
static size_t cut_length(const char *text)
{
    size_t length = strnlen(text, PSD_LOG_VALUE_MAX + 1);

    if (length > PSD_LOG_VALUE_MAX) {
        length = PSD_LOG_VALUE_MAX;
        for (int i = 0; i < 3 && ((uint8_t)text[length] & 0xc0) == 0x80; i++) {
            length--;
        }
    }
    return length;
}

/* -- text -------------------------------------------------------------------------------------- */

/* `size` is at least 5: an escape and the end. Returns the escape's length. */
static size_t escape_byte(char *out, size_t size, char byte)
{
    switch (byte) {
    case '\n':
        return (size_t)snprintf(out, size, "\\n");
    case '\r':
        return (size_t)snprintf(out, size, "\\r");
    case '\t':
        return (size_t)snprintf(out, size, "\\t");
    case '\\':
        return (size_t)snprintf(out, size, "\\\\");
    case '"':
        return (size_t)snprintf(out, size, "\\\"");
    default:
        return (size_t)snprintf(out, size, "\\x%02x", (unsigned)(uint8_t)byte);
    }
}

/* Appends `length` bytes of text, escaped; the characters of `also` are escaped as well. */
static size_t escape(char *out, size_t size, const char *text, size_t length, const char *also)
{
    size_t used = 0;

    for (size_t i = 0; i < length;) {
        bool plain;
        size_t bytes = step(text + i, length - i, &plain);

        plain = plain && strchr(also, text[i]) == NULL;
        if (used + (plain ? bytes : 4 * bytes) >= size) {
            break;
        }
        for (size_t end = i + bytes; i < end; i++) {
            if (plain) {
                out[used++] = text[i];
            } else {
                used += escape_byte(out + used, size - used, text[i]);
            }
        }
    }
    out[used] = '\0';
    return used;
}

void psd_log_escape(char *out, size_t size, const char *text)
{
    escape(out, size, text, strlen(text), "\\");
}

static void put(struct line *line, const char *text)
{
    size_t room = sizeof line->bytes - 1 - line->length; /* 1: the newline */
    size_t length = strlen(text);

    if (length > room) {
        length = room;
    }
    memcpy(line->bytes + line->length, text, length);
    line->length += length;
}

/* Whether a value can be told from what stands around it without quotes. */
static bool is_bare(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ' || text[i] == '"' || text[i] == '=' || text[i] == '\\') {
            return false;
        }
    }
    return length > 0;
}

static void put_value(struct line *line, const char *text)
{
    char escaped[4 * PSD_LOG_VALUE_MAX + 1];
    size_t length = cut_length(text);
    bool bare = is_bare(text, length);

    escape(escaped, sizeof escaped, text, length, "\\\"");
    put(line, bare ? "" : "\"");
    put(line, escaped);
    put(line, bare ? "" : "\"");
}

static void put_field(struct line *line, const struct psd_field *field)
{
    char number[32];

    put(line, " ");
    put(line, field->key);
    put(line, "=");
    switch (field->kind) {
    case PSD_FIELD_TEXT:
        put_value(line, field->value.text);
        return;
    case PSD_FIELD_NUMBER:
        snprintf(number, sizeof number, "%lld", (long long)field->value.number);
        break;
    case PSD_FIELD_REAL:
        snprintf(number, sizeof number, "%.3f", field->value.real);
        break;
    }
    put(line, number);
}

static bool is_left_out(const struct psd_field *field)
{
    return field->kind == PSD_FIELD_TEXT && field->value.text == NULL;
}

static void format_text(struct line *line, const char *time, enum psd_log_level level,
                        const struct psd_field *fields)
{
    line->length =
        (size_t)snprintf(line->bytes, sizeof line->bytes, "%s %-5s ", time, level_names[level]);
    put(line, fields[0].value.text);
    for (const struct psd_field *field = fields + 1; field->key != NULL; field++) {
        if (!is_left_out(field)) {
            put_field(line, field);
        }
    }
}

/* -- JSON -------------------------------------------------------------------------------------- */

/*
 * json-c escapes the controls below U+0020 and passes everything else, also what moves a terminal's
 * cursor and bytes that are not UTF-8, which no reader of JSON takes: those are replaced here.
 */
static json_object *json_text(const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
    char clean[3 * PSD_LOG_VALUE_MAX + 1];
    size_t length = cut_length(text);
    size_t used = 0;

    for (size_t i = 0; i < length;) {
        bool plain;
        size_t bytes = step(text + i, length - i, &plain);
        bool keep = plain || (uint8_t)text[i] < 0x20;
        size_t size = keep ? bytes : sizeof replacement - 1;

        memcpy(clean + used, keep ? text + i : replacement, size);
        used += size;
        i += bytes;
    }
    return json_object_new_string_len(clean, (int)used);
}

static json_object *json_value(const struct psd_field *field)
{
    char number[32];

    switch (field->kind) {
    case PSD_FIELD_NUMBER:
        return json_object_new_int64(field->value.number);
    case PSD_FIELD_REAL:
        snprintf(number, sizeof number, "%.3f", field->value.real);
        return json_object_new_double_s(field->value.real, number);
    case PSD_FIELD_TEXT:
        break;
    }
    return json_text(field->value.text);
}

/* Takes `value`. Returns false where memory has run out. */
static bool json_add(json_object *object, const char *key, json_object *value)
{
    if (value == NULL || json_object_object_add(object, key, value) != 0) {
        json_object_put(value);
        return false;
    }
    return true;
}

/* The line as an object for the caller to free, or NULL where memory has run out. */
static json_object *format_json(const char *time, enum psd_log_level level,
                                const struct psd_field *fields)
{
    json_object *object = json_object_new_object();
    bool ok;

    if (object == NULL) {
        return NULL;
    }
    ok = json_add(object, "time", json_object_new_string(time)) &&
         json_add(object, "level", json_object_new_string(level_names[level]));
    for (const struct psd_field *field = fields; ok && field->key != NULL; field++) {
        ok = is_left_out(field) || json_add(object, field->key, json_value(field));
    }
    if (!ok) {
        json_object_put(object);
        return NULL;
    }
    return object;
}

/* -- output ------------------------------------------------------------------------------------ */

static void write_line(const char *text, size_t length)
{
    struct iovec parts[] = {{(char *)text, length}, {"\n", 1}};
    struct iovec *part = parts;

    while (part < parts + 2) {
        ssize_t written = writev(log_options.fd, part, (int)(parts + 2 - part));

        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return; /* there is nowhere to complain */
        }
        for (; part < parts + 2 && (size_t)written >= part->iov_len; part++) {
            written -= (ssize_t)part->iov_len;
        }
        if (part < parts + 2) {
            part->iov_base = (char *)part->iov_base + written;
            part->iov_len -= (size_t)written;
        }
    }
}

static void format_time(char *out, size_t size)
{
    struct timespec now;
    struct tm utc;
    size_t length;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    length = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out + length, size - length, ".%03ldZ", now.tv_nsec / 1000000);
}

static void log_text(const char *time, enum psd_log_level level, const struct psd_field *fields)
{
    struct line line;

    format_text(&line, time, level, fields);
    write_line(line.bytes, line.length);
}

/* Returns false where memory has run out and nothing was written. */
static bool log_json(const char *time, enum psd_log_level level, const struct psd_field *fields)
{
    json_object *object = format_json(time, level, fields);
    const char *text = NULL;
    size_t length = 0;

    if (object != NULL) {
        text = json_object_to_json_string_length(
            object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
    }
    if (text != NULL) {
        write_line(text, length);
    }
    json_object_put(object);
    return text != NULL;
}

void psd_log_fields(enum psd_log_level level, const struct psd_field *fields)
{
    int saved_errno = errno;
    char time[40];

    if (!psd_log_enabled(level)) {
        return;
    }
    format_time(time, sizeof time);
    if (log_options.format == PSD_LOG_FORMAT_TEXT || !log_json(time, level, fields)) {
        log_text(time, level, fields);
    }
    errno = saved_errno;
}
