#include "descriptors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "payloadstored/raw_file_set.pb-c.h"

struct symbol {
    char *name;
    size_t file;
    bool is_message;
};

struct psd_descriptors {
    Payloadstored__RawFileSet *set; /* the files' bytes */
    char **file_names;              /* as many as the set has files */
    struct symbol *symbols;         /* sorted by name */
    size_t n_symbols;
    size_t room; /* for symbols */
};

/* Where the symbols of a file go while it is read. */
struct reader {
    struct psd_descriptors *into;
    size_t file;
    bool failed; /* memory has run out */
};

/* -- reading ----------------------------------------------------------------------------------- */

static bool make_room(struct psd_descriptors *into)
{
    size_t room = into->room > 0 ? 2 * into->room : 256;
    struct symbol *symbols;

    if (into->n_symbols < into->room) {
        return true;
    }
    symbols = realloc(into->symbols, room * sizeof *symbols);
    if (symbols == NULL) {
        return false;
    }
    into->symbols = symbols;
    into->room = room;
    return true;
}

/*
 * Adds a symbol by its scope ("" for none) and its name there. Returns the full name, which the
 * descriptors own, or "" once memory has run out.
 */
static const char *add(struct reader *reader, const char *scope, const char *name, bool is_message)
{
    struct psd_descriptors *into = reader->into;
    char *full = NULL;

    if (reader->failed || !make_room(into) ||
        asprintf(&full, "%s%s%s", scope, *scope != '\0' ? "." : "", name) < 0) {
        reader->failed = true;
        return "";
    }
    into->symbols[into->n_symbols++] =
        (struct symbol){.name = full, .file = reader->file, .is_message = is_message};
    return full;
}

/* An enum's values are named as if they stood beside it. */
static void add_enum(struct reader *reader, const char *scope,
                     const Google__Protobuf__EnumDescriptorProto *type)
{
    add(reader, scope, type->name, false);
    for (size_t i = 0; i < type->n_value; i++) {
        add(reader, scope, type->value[i]->name, false);
    }
}

/* Recurses as deep as our own protos nest their messages. */
static void add_message(struct reader *reader, const char *scope, // NOLINT(misc-no-recursion)
                        const Google__Protobuf__DescriptorProto *type)
{
    const char *name = add(reader, scope, type->name, true);

    for (size_t i = 0; i < type->n_field; i++) {
        add(reader, name, type->field[i]->name, false);
    }
    for (size_t i = 0; i < type->n_oneof_decl; i++) {
        add(reader, name, type->oneof_decl[i]->name, false);
    }
    for (size_t i = 0; i < type->n_enum_type; i++) {
        add_enum(reader, name, type->enum_type[i]);
    }
    for (size_t i = 0; i < type->n_nested_type; i++) {
        add_message(reader, name, type->nested_type[i]);
    }
}

static void add_service(struct reader *reader, const char *scope,
                        const Google__Protobuf__ServiceDescriptorProto *service)
{
    const char *name = add(reader, scope, service->name, false);

    for (size_t i = 0; i < service->n_method; i++) {
        add(reader, name, service->method[i]->name, false);
    }
}

static bool add_file(struct psd_descriptors *into, size_t i)
{
    const ProtobufCBinaryData *bytes = &into->set->file[i];
    struct reader reader = {.into = into, .file = i};
    Google__Protobuf__FileDescriptorProto *file =
        google__protobuf__file_descriptor_proto__unpack(NULL, bytes->len, bytes->data);
    const char *scope;

    if (file == NULL) {
        return false;
    }
    scope = file->package != NULL ? file->package : "";
    for (size_t j = 0; j < file->n_message_type; j++) {
        add_message(&reader, scope, file->message_type[j]);
    }
    for (size_t j = 0; j < file->n_enum_type; j++) {
        add_enum(&reader, scope, file->enum_type[j]);
    }
    for (size_t j = 0; j < file->n_service; j++) {
        add_service(&reader, scope, file->service[j]);
    }
    into->file_names[i] = strdup(file->name);
    google__protobuf__file_descriptor_proto__free_unpacked(file, NULL);
    return !reader.failed && into->file_names[i] != NULL;
}

static int compare_symbols(const void *left, const void *right)
{
    return strcmp(((const struct symbol *)left)->name, ((const struct symbol *)right)->name);
}

static bool read_set(struct psd_descriptors *descriptors, const void *set, size_t size)
{
    descriptors->set = payloadstored__raw_file_set__unpack(NULL, size, set);
    if (descriptors->set == NULL) {
        return false;
    }
    descriptors->file_names = calloc(descriptors->set->n_file + 1, sizeof(char *));
    if (descriptors->file_names == NULL) {
        return false;
    }
    for (size_t i = 0; i < descriptors->set->n_file; i++) {
        if (!add_file(descriptors, i)) {
            return false;
        }
    }
    if (descriptors->n_symbols > 0) {
        qsort(descriptors->symbols, descriptors->n_symbols, sizeof(struct symbol), compare_symbols);
    }
    return true;
}

struct psd_descriptors *psd_descriptors_create(const void *set, size_t size)
{
    struct psd_descriptors *descriptors = calloc(1, sizeof *descriptors);

    if (descriptors != NULL && !read_set(descriptors, set, size)) {
        psd_descriptors_destroy(descriptors);
        return NULL;
    }
    return descriptors;
}

void psd_descriptors_destroy(struct psd_descriptors *descriptors)
{
    if (descriptors == NULL) {
        return;
    }
    for (size_t i = 0; i < descriptors->n_symbols; i++) {
        free(descriptors->symbols[i].name);
    }
    free(descriptors->symbols);
    for (size_t i = 0; descriptors->file_names != NULL && i < descriptors->set->n_file; i++) {
        free(descriptors->file_names[i]);
    }
    free(descriptors->file_names);
    payloadstored__raw_file_set__free_unpacked(descriptors->set, NULL);
    free(descriptors);
}

/* -- looking up -------------------------------------------------------------------------------- */

static const struct symbol *find(const struct psd_descriptors *descriptors, const char *name)
{
    const struct symbol key = {.name = (char *)name};

    if (descriptors->n_symbols == 0) {
        return NULL;
    }
    return bsearch(&key, descriptors->symbols, descriptors->n_symbols, sizeof key, compare_symbols);
}

static void file_at(const struct psd_descriptors *descriptors, size_t i, struct psd_file *file)
{
    file->data = descriptors->set->file[i].data;
    file->length = descriptors->set->file[i].len;
}

bool psd_descriptors_file(const struct psd_descriptors *descriptors, const char *name,
                          struct psd_file *file)
{
    for (size_t i = 0; i < descriptors->set->n_file; i++) {
        if (strcmp(descriptors->file_names[i], name) == 0) {
            file_at(descriptors, i, file);
            return true;
        }
    }
    return false;
}

bool psd_descriptors_symbol(const struct psd_descriptors *descriptors, const char *symbol,
                            struct psd_file *file)
{
    const struct symbol *found = find(descriptors, symbol);

    if (found != NULL) {
        file_at(descriptors, found->file, file);
    }
    return found != NULL;
}

bool psd_descriptors_has_message(const struct psd_descriptors *descriptors, const char *name)
{
    const struct symbol *found = find(descriptors, name);

    return found != NULL && found->is_message;
}
