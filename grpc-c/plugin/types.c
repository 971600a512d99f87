/* Every message type that the request describes, the imported files' included. */
#include "plugin.h"

#include <stdlib.h>
#include <string.h>

static struct gen_type *append(struct gen_types *types)
{
    if (types->count == types->capacity) {
        size_t capacity = types->capacity != 0 ? types->capacity * 2 : 64;
        struct gen_type *items = reallocarray(types->items, capacity, sizeof(*items));

        if (items == NULL) {
            return NULL;
        }
        types->items = items;
        types->capacity = capacity;
    }
    types->items[types->count] = (struct gen_type){0};
    return &types->items[types->count++];
}

/* `scope` is the full name of what the message stands in, "" outside of a package. */
static int collect_message(struct gen_types *types, struct gen_pool *pool,
                           const gen_file_proto *file, const char *scope,
                           const gen_message_proto *message, bool nested, struct gen_text *error)
{
    struct gen_type *type;
    const char *full;
    const char *c_full;
    size_t i;

    if (!gen_name_valid(message->name, false)) {
        gen_text_printf(error, "%s: a message has no proper name", file->name);
        return -1;
    }
    type = append(types);
    if (type == NULL) {
        gen_text_printf(error, "out of memory");
        return -1;
    }
    full = gen_pool_printf(pool, "%s%s%s", scope, *scope != '\0' ? "." : "", message->name);
    c_full = gen_name_override(pool, file, full);
    type->full_name = gen_pool_printf(pool, ".%s", full);
    type->c_type = gen_name_full_camel(pool, c_full);
    type->symbol = gen_name_full_lower(pool, c_full);
    type->nested = nested;
    /* gen_request_read has bounded the depth of this. */
    for (i = 0; i < message->n_nested_type; i++) {
        if (collect_message(types, pool, file, full, message->nested_type[i], true, error) != 0) {
            return -1;
        }
    }
    return 0;
}

static int collect_file(struct gen_types *types, struct gen_pool *pool, const gen_file_proto *file,
                        struct gen_text *error)
{
    const char *package = file->package != NULL ? file->package : "";
    size_t i;

    if (file->name == NULL || *file->name == '\0' ||
        (*package != '\0' && !gen_name_valid(package, true))) {
        gen_text_printf(error, "a file of the request has no name or no proper package");
        return -1;
    }
    for (i = 0; i < file->n_message_type; i++) {
        if (collect_message(types, pool, file, package, file->message_type[i], false, error) != 0) {
            return -1;
        }
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct gen_type *left = a;
    const struct gen_type *right = b;

    return strcmp(left->full_name, right->full_name);
}

int gen_types_collect(struct gen_types *types, struct gen_pool *pool,
                      const gen_request_message *request, struct gen_text *error)
{
    size_t i;

    for (i = 0; i < request->n_proto_file; i++) {
        if (collect_file(types, pool, request->proto_file[i], error) != 0) {
            return -1;
        }
    }
    if (pool->failed) {
        gen_text_printf(error, "out of memory");
        return -1;
    }
    if (types->count != 0) {
        qsort(types->items, types->count, sizeof(*types->items), compare);
    }
    return 0;
}

const struct gen_type *gen_types_find(const struct gen_types *types, const char *full_name)
{
    struct gen_type key = {.full_name = full_name};

    if (full_name == NULL || types->count == 0) {
        return NULL;
    }
    return bsearch(&key, types->items, types->count, sizeof(*types->items), compare);
}

void gen_types_fini(struct gen_types *types)
{
    free(types->items);
    *types = (struct gen_types){0};
}
