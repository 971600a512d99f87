/*
 * Server reflection, v1 and v1alpha: lets grpcurl and its like learn the server's methods and
 * messages from the server itself.
 *
 * Answers hold the files as protoc described them, comments included, one an answer; tools ask for
 * imports by name. There are no extensions in our protos: the questions about them get NOT_FOUND
 * and an empty list.
 */
#ifndef PAYLOADSTORED_REFLECTION_H
#define PAYLOADSTORED_REFLECTION_H

#include <stddef.h>

#include <grpc-c/server.h>

struct psd_reflection;

/*
 * `services` are the `n_services` full names to list; borrowed until the end, as their array.
 * Returns NULL where memory has run out.
 */
struct psd_reflection *psd_reflection_create(const char *const *services, size_t n_services);

/* The server must have been destroyed, or the services never registered. Takes NULL. */
void psd_reflection_destroy(struct psd_reflection *reflection);

/* Adds both services before the server starts. Returns 0, or -1. `reflection` outlives the server.
 */
int psd_reflection_register(struct psd_reflection *reflection, grpc_c_server *server);

#endif
