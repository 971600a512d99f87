/*
 * The standard health service, grpc.health.v1.Health: whether the server, and payloadstore.v1's
 * service on it, takes calls. Both names share one status.
 *
 * A Watch stream is held open until its caller leaves or psd_health_stop ends it; streams left open
 * would hold up the server's drain.
 *
 * Threads: psd_health_set and psd_health_stop may be called from any, not from a callback.
 */
#ifndef PAYLOADSTORED_HEALTH_H
#define PAYLOADSTORED_HEALTH_H

#include <stdbool.h>

#include <grpc-c/server.h>

struct psd_health;

/* Not serving at first. Returns NULL where memory has run out. */
struct psd_health *psd_health_create(void);

/* The server must have been destroyed, or the service never registered. Takes NULL. */
void psd_health_destroy(struct psd_health *health);

/* Adds the service before the server starts. Returns 0, or -1. `health` outlives the server. */
int psd_health_register(struct psd_health *health, grpc_c_server *server);

/* Sets the status and tells those who watch, where it has changed. Nothing after psd_health_stop.
 */
void psd_health_set(struct psd_health *health, bool serving);

/* Says NOT_SERVING for good and ends all Watch streams, also those to come, with UNAVAILABLE. */
void psd_health_stop(struct psd_health *health);

#endif
