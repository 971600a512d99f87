/* A proxy between a client and a server that cuts each connection after so many bytes, by chance.
 */
#ifndef TESTS_CUTTING_PROXY_H
#define TESTS_CUTTING_PROXY_H

#include <stdint.h>

struct cutting_proxy;

/*
 * Listens on a port and connects to the server on `target`, "unix:path" or "127.0.0.1:port". Serves
 * one connection after the other, each for 16 to 2^`most_bits` bytes of both directions together
 * (any size, as often a small one as a large one), and ends it, as often with a reset as without.
 */
struct cutting_proxy *cutting_proxy_start(const char *target, uint64_t seed, unsigned most_bits);

/* "127.0.0.1:40112" */
const char *cutting_proxy_address(const struct cutting_proxy *proxy);

/* How many connections it has cut so far. */
unsigned cutting_proxy_cuts(const struct cutting_proxy *proxy);

/* Ends the connection there is. */
void cutting_proxy_stop(struct cutting_proxy *proxy);

#endif
