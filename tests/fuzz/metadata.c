/*
 * Metadata, in both directions. Entries until the input ends: a byte the key's length, a byte the
 * value's in units that the first byte of all gives, both as they come.
 *
 * What we take, core takes, which else would abort the call; what was added is within the limit,
 * and comes out at the other end as it went in.
 */
#include <grpc/grpc.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include "core.h"
#include "fuzz.h"
#include "metadata.h"
#include "status.h"

#define ENTRIES_MAX 64

static bool core_takes(const struct grpc_c_metadata *entry)
{
    grpc_slice key = grpc_slice_from_copied_string(entry->key);
    grpc_slice value = grpc_slice_from_copied_buffer(entry->value, entry->length);
    bool takes = grpc_header_key_is_legal(key) &&
                 (grpc_is_binary_header(key) || grpc_header_nonbin_value_is_legal(value));

    grpc_slice_unref(key);
    grpc_slice_unref(value);
    return takes;
}

static void add(struct gci_metadata *list, const struct grpc_c_metadata *entry)
{
    enum grpc_c_metadata_fault fault = grpc_c_metadata_check(entry);
    enum grpc_c_metadata_fault added;
    size_t before = list->n;

    insist(strcmp(grpc_c_metadata_fault_text(fault), "unknown") != 0);
    insist(fault != GRPC_C_METADATA_OK || core_takes(entry));
    added = gci_metadata_add(list, entry);
    insist(added == fault || added == GRPC_C_METADATA_TOO_LARGE);
    insist(list->n == before + (added == GRPC_C_METADATA_OK));
    insist(list->size <= GRPC_C_METADATA_MAX);
}

static void check_received(const struct gci_received *received, const grpc_metadata *entries,
                           size_t n)
{
    size_t next = 0;

    for (size_t i = 0; i < n; i++) {
        const struct grpc_c_metadata *got;
        if (grpc_slice_str_cmp(entries[i].key, GCI_DETAILS_KEY) == 0) {
            continue;
        }
        insist(next < received->n);
        got = &received->list[next];
        insist(memcmp(got->key, GRPC_SLICE_START_PTR(entries[i].key),
                      GRPC_SLICE_LENGTH(entries[i].key)) == 0);
        insist(got->key[GRPC_SLICE_LENGTH(entries[i].key)] == '\0');
        insist(got->length == GRPC_SLICE_LENGTH(entries[i].value));
        insist(memcmp(got->value, GRPC_SLICE_START_PTR(entries[i].value), got->length) == 0);
        insist(((const char *)got->value)[got->length] == '\0');
        insist(grpc_c_metadata_find(received->list, received->n, got->key) != NULL);
        next++;
    }
    insist(next == received->n && (next > 0) == (received->list != NULL));
}

static void receive(grpc_metadata *entries, size_t n)
{
    grpc_metadata_array array = {n, n, entries};
    struct gci_received received = gci_metadata_copy(&array);

    check_received(&received, entries, n);
    gpr_free(received.list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    size_t unit = 1 + take_byte(&in) % 128;
    struct gci_metadata list = {0};
    grpc_metadata raw[ENTRIES_MAX]; /* as a peer might send them */
    size_t n = 0;
    size_t size_sum = 0;

    while (in.left > 0 && n < ENTRIES_MAX) {
        size_t key_length = take_byte(&in);
        size_t value_length = take_byte(&in) * unit;
        const uint8_t *key_bytes = in.at;
        char *key = take_string(&in, key_length);
        struct grpc_c_metadata entry = {.key = key};
        entry.value = take(&in, value_length, &entry.length);
        key_length = (size_t)((const uint8_t *)entry.value - key_bytes);
        memset(&raw[n], 0, sizeof(raw[n]));
        raw[n].key = grpc_slice_from_copied_buffer((const char *)key_bytes, key_length);
        raw[n].value = grpc_slice_from_copied_buffer(entry.value, entry.length);
        n++;
        add(&list, &entry);
        free(key);
    }
    for (size_t i = 0; i < list.n; i++) {
        const grpc_metadata *sent = &list.entries[i];
        char *key = grpc_slice_to_c_string(sent->key);
        size_sum += gci_metadata_cost(key, GRPC_SLICE_LENGTH(sent->value));
        gpr_free(key);
    }
    insist(size_sum == list.size);
    receive(list.entries, list.n);
    receive(raw, n);
    while (n > 0) {
        n--;
        grpc_slice_unref(raw[n].key);
        grpc_slice_unref(raw[n].value);
    }
    gci_metadata_fini(&list);
    return 0;
}
