/* A real payloadstored for a C test: a process of its own, on a unix: socket of its own. */
#ifndef TESTS_SERVER_PROCESS_H
#define TESTS_SERVER_PROCESS_H

#include <limits.h>
#include <sys/types.h>

#include <grpc-c/grpc-c.h>

#define SERVER_TARGET_SIZE 64

struct server_process {
    const char *program; /* set between _init and _start; NULL: what PAYLOADSTORED names */
    pid_t pid;
    char dir[PATH_MAX]; /* holds data and log; a new directory below TMPDIR */
    char socket[64];    /* in /tmp: a socket's path must be short */
    char address[80];   /* "unix:" and that */
    off_t log_start;    /* where in the log this run's begins */
    grpc_c_channel *channel;
};

/* Makes the directory; no server yet. */
void server_process_init(struct server_process *server);
/* Starts the program, with `flags` (NULL-terminated) after its own, and a channel to it. */
void server_process_start(struct server_process *server, const char *const *flags);
/* The first port it listens on, "127.0.0.1:40112"; waits until the log tells. With `flags` that
 * give it one. */
void server_process_target(const struct server_process *server, char target[SERVER_TARGET_SIZE]);
/* Sends the signal and waits. Returns the exit status, or 128 and the signal that ended it. */
int server_process_stop(struct server_process *server, int signal);
/* Kills what still runs and deletes the directory. */
void server_process_fini(struct server_process *server);

#endif
