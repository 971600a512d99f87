/*
 * protoc-gen-c's rules for names.
 *
 * They know ASCII only, like the identifiers of a .proto, so <ctype.h> and its locales are left
 * out.
 */
#include "plugin.h"

#include <stdlib.h>
#include <string.h>

enum {
    PB_C_FILE = 1019,   /* the extension (pb_c_file) of google.protobuf.FileOptions */
    PB_C_C_PACKAGE = 6, /* c_package in it */
};

struct gen_chunk {
    struct gen_chunk *next;
    char text[];
};

void gen_pool_fini(struct gen_pool *pool)
{
    while (pool->chunks != NULL) {
        struct gen_chunk *chunk = pool->chunks;

        pool->chunks = chunk->next;
        free(chunk);
    }
    *pool = (struct gen_pool){0};
}

/* A copy of what was printed into `text`, which is freed. */
static const char *keep(struct gen_pool *pool, struct gen_text *text)
{
    struct gen_chunk *chunk = NULL;

    if (!text->failed) {
        chunk = malloc(sizeof(*chunk) + text->length + 1);
    }
    if (chunk != NULL) {
        memcpy(chunk->text, text->length != 0 ? text->data : "", text->length + 1);
        chunk->next = pool->chunks;
        pool->chunks = chunk;
    } else {
        pool->failed = true;
    }
    gen_text_fini(text);
    return chunk != NULL ? chunk->text : "";
}

const char *gen_pool_printf(struct gen_pool *pool, const char *format, ...)
{
    struct gen_text text = {0};
    va_list arguments;

    va_start(arguments, format);
    gen_text_vprintf(&text, format, arguments);
    va_end(arguments);
    return keep(pool, &text);
}

/* -- characters ------------------------------------------------------------------------------ */

static bool is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char to_upper(char c)
{
    if (is_lower(c)) {
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[c - 'a'];
    }
    return c;
}

static char to_lower(char c)
{
    if (is_upper(c)) {
        return "abcdefghijklmnopqrstuvwxyz"[c - 'A'];
    }
    return c;
}

static void add_char(struct gen_text *text, char c)
{
    gen_text_add(text, &c, 1);
}

/* -- one piece of a name --------------------------------------------------------------------- */

/* A capital begins a word unless a capital stands before it: HTTPServer becomes httpserver. */
static void add_lower(struct gen_text *text, const char *name, size_t length)
{
    bool was_upper = true; /* no underscore at the beginning */
    size_t i;

    for (i = 0; i < length; i++) {
        if (is_upper(name[i]) && !was_upper) {
            add_char(text, '_');
        }
        add_char(text, to_lower(name[i]));
        was_upper = is_upper(name[i]);
    }
}

/* Underscores go, and what follows one becomes a capital: get_2nd becomes Get2nd. */
static void add_camel(struct gen_text *text, const char *name, size_t length)
{
    bool next_upper = true;
    size_t i;

    for (i = 0; i < length; i++) {
        char c = name[i];

        if (next_upper) {
            c = to_upper(c);
        }
        if (c != '_') {
            add_char(text, c);
        }
        next_upper = c == '_';
    }
}

/* -- whole names ----------------------------------------------------------------------------- */

const char *gen_name_lower(struct gen_pool *pool, const char *name)
{
    struct gen_text text = {0};

    add_lower(&text, name, strlen(name));
    return keep(pool, &text);
}

typedef void add_piece(struct gen_text *text, const char *name, size_t length);

/* The pieces between dots, joined by two underscores; empty ones vanish. */
static const char *join(struct gen_pool *pool, const char *full, add_piece *add)
{
    struct gen_text text = {0};

    while (*full != '\0') {
        size_t length = strcspn(full, ".");

        if (length != 0) {
            gen_text_add(&text, "__", text.length != 0 ? 2 : 0);
            add(&text, full, length);
        }
        full += length + (full[length] == '.' ? 1 : 0);
    }
    return keep(pool, &text);
}

const char *gen_name_full_lower(struct gen_pool *pool, const char *full)
{
    return join(pool, full, add_lower);
}

const char *gen_name_full_camel(struct gen_pool *pool, const char *full)
{
    return join(pool, full, add_camel);
}

const char *gen_name_base(struct gen_pool *pool, const char *file)
{
    static const char *const endings[] = {".protodevel", ".proto"};
    size_t length = strlen(file);
    size_t i;

    for (i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t ending = strlen(endings[i]);

        if (length >= ending && strcmp(file + length - ending, endings[i]) == 0) {
            return gen_pool_printf(pool, "%.*s", (int)(length - ending), file);
        }
    }
    return gen_pool_printf(pool, "%s", file);
}

/* Two underscores for a slash, so that a/b.proto and a_b.proto can be included together. */
const char *gen_name_guard(struct gen_pool *pool, const char *base)
{
    struct gen_text text = {0};

    gen_text_printf(&text, "GRPC_C__");
    for (; *base != '\0'; base++) {
        if (is_upper(*base) || is_lower(*base) || is_digit(*base) || *base == '_') {
            add_char(&text, to_upper(*base));
        } else if (*base == '/') {
            gen_text_printf(&text, "__");
        } else {
            gen_text_printf(&text, "_%02X", (unsigned)(unsigned char)*base);
        }
    }
    gen_text_printf(&text, "_H");
    return keep(pool, &text);
}

bool gen_name_valid(const char *name, bool dots)
{
    bool begins = true;

    if (name == NULL) {
        return false;
    }
    for (; *name != '\0'; name++) {
        bool letter = is_upper(*name) || is_lower(*name) || *name == '_';

        if (!begins && dots && *name == '.') {
            begins = true;
        } else if (letter || (!begins && is_digit(*name))) {
            begins = false;
        } else {
            return false;
        }
    }
    return !begins;
}

/* -- option (pb_c_file).c_package ------------------------------------------------------------ */

/* The last c_package among the fields of a ProtobufCFileOptions. */
static void find_c_package(const ProtobufCMessageUnknownField *option, struct gen_wire_field *found)
{
    struct gen_wire wire = {option->data, option->len};
    struct gen_wire outer;
    struct gen_wire_field field;
    size_t prefix = 0;

    /* protobuf-c keeps the length in front of an unknown field's bytes. */
    while (prefix < wire.length && (wire.data[prefix] & 0x80) != 0) {
        prefix++;
    }
    if (prefix >= wire.length) {
        return;
    }
    outer = (struct gen_wire){wire.data + prefix + 1, wire.length - prefix - 1};
    while (gen_wire_next(&outer, &field) > 0) {
        if (field.number == PB_C_C_PACKAGE && field.type == 2) {
            *found = field;
        }
    }
}

const char *gen_name_override(struct gen_pool *pool, const gen_file_proto *file, const char *full)
{
    const char *package = file->package != NULL ? file->package : "";
    struct gen_wire_field found = {0};
    const char *c_package;
    size_t i;

    for (i = 0; file->options != NULL && i < file->options->base.n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *option = &file->options->base.unknown_fields[i];

        if (option->tag == PB_C_FILE && option->wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
            find_c_package(option, &found);
        }
    }
    if (found.data == NULL) {
        return full;
    }
    c_package = gen_pool_printf(pool, "%.*s", (int)found.length, (const char *)found.data);
    if (*c_package != '\0' && !gen_name_valid(c_package, true)) {
        return full;
    }
    return gen_pool_printf(pool, "%s%s%s", c_package, *package == '\0' ? "." : "",
                           full + strlen(package));
}
