/*
 * The google.protobuf.FileDescriptorSet of the protos that the server reflects, serialised, with
 * imports and comments. protoc makes it, imports before their importers.
 */
#ifndef PAYLOADSTORE_DESCRIPTOR_SET_H
#define PAYLOADSTORE_DESCRIPTOR_SET_H

#include <stddef.h>

extern const unsigned char payloadstore_descriptor_set[];
extern const size_t payloadstore_descriptor_set_size; /* bytes */

#endif
