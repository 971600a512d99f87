/*
 * Refuses what protoc lets pass and the C compiler would not.
 *
 * All C names that a service brings into the world, protoc-gen-c's and ours, are put into one
 * sorted list; two equal ones are a clash. So is one that a message brings as well.
 */
#include "plugin.h"

#include <stdlib.h>
#include <string.h>

struct symbol {
    const char *name;
    const struct gen_service *service;
    const struct gen_method *method; /* NULL: the service's own */
};

struct symbols {
    struct symbol *items;
    size_t count;
};

/* What protoc-gen-c and we emit for each service, behind its name. */
static const char *const service_suffixes[] = {
    "init",         "descriptor", "method_descriptors", "method_indices_by_name", "service",
    "service_init", "methods",
};

/* The same for each method, whatever its shape: one that changes it need not rename the rpc. */
static const char *const method_suffixes[] = {
    "begin",      "message", "reply",    "reply_lent", "send",        "send_lent",
    "sync",       "async",   "answered", "done",       "open",        "write",
    "write_lent", "read",    "events",   "arrived",    "async_write", "async_write_lent",
};

/* What protoc-gen-c emits for each message; for nested ones the first two only. */
static const char *const message_suffixes[] = {
    "init", "descriptor", "get_packed_size", "pack", "pack_to_buffer", "unpack", "free_unpacked",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/*
 * Words that cannot name a handler: C's and gcc's keywords, and what headers that every user of
 * ours includes, or gcc itself, define as macros.
 */
static const char *const reserved[] = {
    "asm",    "assert",   "auto",    "bool",     "break",    "case",     "char",
    "const",  "continue", "default", "do",       "double",   "else",     "enum",
    "extern", "false",    "float",   "for",      "goto",     "if",       "inline",
    "int",    "linux",    "long",    "register", "restrict", "return",   "short",
    "signed", "sizeof",   "static",  "struct",   "switch",   "true",     "typedef",
    "typeof", "union",    "unix",    "unsigned", "void",     "volatile", "while",
};

static bool is_reserved(const char *name)
{
    size_t i;

    for (i = 0; i < COUNT(reserved); i++) {
        if (strcmp(name, reserved[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int check_handler(const struct gen_file *file, const struct gen_service *service,
                         const struct gen_method *method, struct gen_text *error)
{
    if (is_reserved(method->c_name)) {
        gen_text_printf(error, "%s: rpc %s of service %s cannot be called so: \"%s\" is taken in C",
                        file->name, method->name, service->name, method->c_name);
        return -1;
    }
    if (strcmp(method->c_name, "user") == 0) {
        gen_text_printf(error,
                        "%s: rpc %s of service %s cannot be called so: the struct of handlers "
                        "has a member \"user\" already",
                        file->name, method->name, service->name);
        return -1;
    }
    return 0;
}

/* -- clashes --------------------------------------------------------------------------------- */

static void add(struct symbols *symbols, const char *name, const struct gen_service *service,
                const struct gen_method *method)
{
    symbols->items[symbols->count++] = (struct symbol){name, service, method};
}

static void add_service(struct symbols *symbols, struct gen_pool *pool,
                        const struct gen_service *service)
{
    size_t i;
    size_t j;

    for (i = 0; i < COUNT(service_suffixes); i++) {
        add(symbols, gen_pool_printf(pool, "%s__%s", service->symbol, service_suffixes[i]), service,
            NULL);
    }
    for (i = 0; i < service->n_methods; i++) {
        const struct gen_method *method = &service->methods[i];

        add(symbols, method->symbol, service, method);
        for (j = 0; j < COUNT(method_suffixes); j++) {
            add(symbols, gen_pool_printf(pool, "%s__%s", method->symbol, method_suffixes[j]),
                service, method);
        }
    }
}

static int compare(const void *a, const void *b)
{
    const struct symbol *left = a;
    const struct symbol *right = b;

    return strcmp(left->name, right->name);
}

static int collect(struct symbols *symbols, struct gen_pool *pool, const struct gen_file *file)
{
    size_t count = 0;
    size_t i;

    for (i = 0; i < file->n_services; i++) {
        count +=
            COUNT(service_suffixes) + file->services[i].n_methods * (1 + COUNT(method_suffixes));
    }
    symbols->items = calloc(count + 1, sizeof(*symbols->items));
    if (symbols->items == NULL) {
        return -1;
    }
    for (i = 0; i < file->n_services; i++) {
        add_service(symbols, pool, &file->services[i]);
    }
    qsort(symbols->items, symbols->count, sizeof(*symbols->items), compare);
    return pool->failed ? -1 : 0;
}

static void describe(struct gen_text *text, const struct symbol *symbol)
{
    if (symbol->method != NULL) {
        gen_text_printf(text, "rpc %s of service %s", symbol->method->name, symbol->service->name);
    } else {
        gen_text_printf(text, "service %s", symbol->service->name);
    }
}

/* Names both sides; a clash with the service's own names is put down to the rpc alone. */
static int report(struct gen_text *error, const struct gen_file *file, const struct symbol *a,
                  const struct symbol *b)
{
    const struct symbol *first = a->method != NULL ? a : b;
    const struct symbol *second = first == a ? b : a;

    gen_text_printf(error, "%s: ", file->name);
    describe(error, first);
    gen_text_printf(error, " cannot be called so: ");
    if (second->method == NULL && first->service == second->service) {
        gen_text_printf(error, "\"%s\" is taken in the generated code", first->name);
    } else {
        gen_text_printf(error, "it becomes \"%s\" in C, and so does ", first->name);
        describe(error, second);
    }
    return -1;
}

static int check_services(const struct symbols *symbols, const struct gen_file *file,
                          struct gen_text *error)
{
    size_t i;

    for (i = 1; i < symbols->count; i++) {
        if (strcmp(symbols->items[i - 1].name, symbols->items[i].name) == 0) {
            return report(error, file, &symbols->items[i - 1], &symbols->items[i]);
        }
    }
    return 0;
}

static int check_message(const struct symbols *symbols, const struct gen_file *file,
                         const struct gen_type *type, struct gen_text *error)
{
    struct gen_text name = {0};
    size_t count = type->nested ? 2 : COUNT(message_suffixes);
    const struct symbol *found = NULL;
    size_t i;
    int rc;

    for (i = 0; i < count && found == NULL && !name.failed; i++) {
        struct symbol key;

        name.length = 0;
        gen_text_printf(&name, "%s__%s", type->symbol, message_suffixes[i]);
        key.name = name.failed ? "" : name.data;
        found = bsearch(&key, symbols->items, symbols->count, sizeof(key), compare);
    }
    if (found != NULL) {
        gen_text_printf(error, "%s: ", file->name);
        describe(error, found);
        gen_text_printf(error,
                        " cannot be called so: it becomes \"%s\" in C, and so does message %s",
                        found->name, type->full_name + 1);
    } else if (name.failed) {
        gen_text_printf(error, "out of memory");
    }
    rc = found != NULL || name.failed ? -1 : 0;
    gen_text_fini(&name);
    return rc;
}

static int check_clashes(const struct gen_file *file, struct gen_pool *pool,
                         const struct gen_types *types, struct gen_text *error)
{
    struct symbols symbols = {0};
    int rc;
    size_t i;

    rc = collect(&symbols, pool, file);
    if (rc != 0) {
        gen_text_printf(error, "out of memory");
        goto out;
    }
    rc = check_services(&symbols, file, error);
    for (i = 0; rc == 0 && i < types->count; i++) {
        rc = check_message(&symbols, file, &types->items[i], error);
    }
out:
    free(symbols.items);
    return rc;
}

int gen_file_check(const struct gen_file *file, struct gen_pool *pool,
                   const struct gen_types *types, struct gen_text *error)
{
    size_t i;
    size_t j;

    for (i = 0; i < file->n_services; i++) {
        for (j = 0; j < file->services[i].n_methods; j++) {
            if (check_handler(file, &file->services[i], &file->services[i].methods[j], error) !=
                0) {
                return -1;
            }
        }
    }
    return file->n_services != 0 ? check_clashes(file, pool, types, error) : 0;
}
