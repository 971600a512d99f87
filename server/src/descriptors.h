/*
 * What a server may hand out about its protos: files by name, and the file of a symbol.
 *
 * Read-only once made, so any number of threads may look things up. Names come from callers: any
 * string is fine, and one that is not there is simply not found.
 */
#ifndef PAYLOADSTORED_DESCRIPTORS_H
#define PAYLOADSTORED_DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct psd_descriptors;

/* A serialised google.protobuf.FileDescriptorProto; lives as long as the descriptors. */
struct psd_file {
    const uint8_t *data;
    size_t length; /* bytes */
};

/*
 * Reads a serialised google.protobuf.FileDescriptorSet, which must be one of our own making: depth
 * and size are not checked. Returns NULL where it is none, or where memory has run out.
 */
struct psd_descriptors *psd_descriptors_create(const void *set, size_t size);

/* Takes NULL. */
void psd_descriptors_destroy(struct psd_descriptors *descriptors);

/* The file that imports know by this name. Returns false where there is none. */
bool psd_descriptors_file(const struct psd_descriptors *descriptors, const char *name,
                          struct psd_file *file);

/*
 * The file that defines a symbol: the full name, without a leading dot, of a service, method,
 * message, field, oneof, enum or enum value. Returns false where there is none.
 */
bool psd_descriptors_symbol(const struct psd_descriptors *descriptors, const char *symbol,
                            struct psd_file *file);

/* Whether there is a message type of this full name. */
bool psd_descriptors_has_message(const struct psd_descriptors *descriptors, const char *name);

#endif
