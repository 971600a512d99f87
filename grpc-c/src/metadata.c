/* Metadata: what may be sent, and the way between our lists and core's. */
#include <stdlib.h>
#include <string.h>

#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include "metadata.h"
#include "status.h"

#define ENTRY_OVERHEAD 32u /* RFC 7541, 4.1 */
#define FIRST_ROOM     4u

const char *grpc_c_metadata_fault_text(enum grpc_c_metadata_fault fault)
{
    switch (fault) {
#define FAULT_TEXT(name, text)   \
    case GRPC_C_METADATA_##name: \
        return text;
        GRPC_C_METADATA_MAP(FAULT_TEXT)
#undef FAULT_TEXT
    default:
        return "unknown";
    }
}

/* -- what may be sent ------------------------------------------------------------------------- */

/* As core tells it, to which "-bin" alone is text. */
static bool is_binary(const char *key)
{
    size_t length = strlen(key);

    return length > 4 && strcmp(key + length - 4, "-bin") == 0;
}

static bool is_reserved(const char *key)
{
    static const char *const reserved[] = {
        "connection", "content-length",   "content-type", "host",
        "keep-alive", "proxy-connection", "te",           "transfer-encoding",
        "upgrade",    "user-agent",
    };

    if (strncmp(key, "grpc-", 5) == 0) {
        return true;
    }
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        if (strcmp(key, reserved[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_key(const char *key)
{
    static const char legal[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";

    return key != NULL && key[0] != '\0' && key[strspn(key, legal)] == '\0';
}

/* Spaces at the ends may be trimmed on the way, so that they cannot be relied upon. */
static bool is_text(const char *value, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (value[i] < 0x20 || value[i] > 0x7e) {
            return false;
        }
    }
    return length == 0 || (value[0] != ' ' && value[length - 1] != ' ');
}

size_t gci_metadata_cost(const char *key, size_t length)
{
    size_t value = is_binary(key) ? length / 3 * 4 + (length % 3 != 0 ? 4 : 0) : length;

    return strlen(key) + value + ENTRY_OVERHEAD;
}

enum grpc_c_metadata_fault grpc_c_metadata_check(const struct grpc_c_metadata *entry)
{
    if (!is_key(entry->key)) {
        return GRPC_C_METADATA_BAD_KEY;
    }
    if (is_reserved(entry->key)) {
        return GRPC_C_METADATA_RESERVED_KEY;
    }
    if (entry->length > GRPC_C_METADATA_MAX ||
        gci_metadata_cost(entry->key, entry->length) > GRPC_C_METADATA_MAX) {
        return GRPC_C_METADATA_TOO_LARGE;
    }
    if (!is_binary(entry->key) && !is_text(entry->value, entry->length)) {
        return GRPC_C_METADATA_BAD_VALUE;
    }
    return GRPC_C_METADATA_OK;
}

const struct grpc_c_metadata *grpc_c_metadata_find(const struct grpc_c_metadata *list, size_t n,
                                                   const char *key)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].key, key) == 0) {
            return &list[i];
        }
    }
    return NULL;
}

/* -- sending ---------------------------------------------------------------------------------- */

static bool make_room(struct gci_metadata *list)
{
    size_t room = list->room == 0 ? FIRST_ROOM : list->room * 2;
    grpc_metadata *entries;

    if (list->n < list->room) {
        return true;
    }
    entries = realloc(list->entries, room * sizeof(*entries));
    if (entries == NULL) {
        return false;
    }
    list->entries = entries;
    list->room = room;
    return true;
}

static bool append(struct gci_metadata *list, grpc_slice key, size_t cost, const void *value,
                   size_t length)
{
    if (!make_room(list)) {
        grpc_slice_unref(key);
        return false;
    }
    memset(&list->entries[list->n], 0, sizeof(list->entries[0]));
    list->entries[list->n].key = key;
    list->entries[list->n].value = grpc_slice_from_copied_buffer(value, length);
    list->n++;
    list->size += cost;
    return true;
}

enum grpc_c_metadata_fault gci_metadata_add(struct gci_metadata *list,
                                            const struct grpc_c_metadata *entry)
{
    enum grpc_c_metadata_fault fault = grpc_c_metadata_check(entry);
    size_t cost;

    if (fault != GRPC_C_METADATA_OK) {
        return fault;
    }
    cost = gci_metadata_cost(entry->key, entry->length);
    if (list->size + cost > GRPC_C_METADATA_MAX) {
        return GRPC_C_METADATA_TOO_LARGE;
    }
    if (!append(list, grpc_slice_from_copied_string(entry->key), cost, entry->value,
                entry->length)) {
        return GRPC_C_METADATA_NO_MEMORY;
    }
    return GRPC_C_METADATA_OK;
}

bool gci_metadata_add_own(struct gci_metadata *list, const char *key, const void *value,
                          size_t length)
{
    return append(list, grpc_slice_from_static_string(key), gci_metadata_cost(key, length), value,
                  length);
}

void gci_metadata_fini(struct gci_metadata *list)
{
    for (size_t i = 0; i < list->n; i++) {
        grpc_slice_unref(list->entries[i].key);
        grpc_slice_unref(list->entries[i].value);
    }
    free(list->entries);
    memset(list, 0, sizeof(*list));
}

/* -- receiving -------------------------------------------------------------------------------- */

static bool is_ours(const grpc_metadata *entry)
{
    return grpc_slice_str_cmp(entry->key, GCI_DETAILS_KEY) != 0;
}

/* Puts a slice's bytes and a NUL at *at, which moves on. */
static const char *put(char **at, const grpc_slice *slice)
{
    char *start = *at;

    memcpy(start, GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
    start[GRPC_SLICE_LENGTH(*slice)] = '\0';
    *at += GRPC_SLICE_LENGTH(*slice) + 1;
    return start;
}

struct gci_received gci_metadata_copy(const grpc_metadata_array *array)
{
    struct gci_received received = {NULL, 0};
    size_t size = 0;
    size_t n = 0;
    char *at;

    for (size_t i = 0; i < array->count; i++) {
        const grpc_metadata *entry = &array->metadata[i];
        n += is_ours(entry);
        size += GRPC_SLICE_LENGTH(entry->key) + GRPC_SLICE_LENGTH(entry->value) + 2;
    }
    if (n == 0) {
        return received;
    }
    received.list = gpr_malloc(n * sizeof(*received.list) + size);
    at = (char *)(received.list + n);
    for (size_t i = 0; i < array->count; i++) {
        const grpc_metadata *entry = &array->metadata[i];
        if (is_ours(entry)) {
            struct grpc_c_metadata *to = &received.list[received.n++];
            to->key = put(&at, &entry->key);
            to->value = put(&at, &entry->value);
            to->length = GRPC_SLICE_LENGTH(entry->value);
        }
    }
    return received;
}
