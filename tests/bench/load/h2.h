/*
 * The client's side of gRPC over HTTP/2, with as little between a call and its bytes as can be:
 * frames written by hand into one buffer a connection, header blocks encoded once a method, answers
 * parsed where they were received; libnghttp2 decodes the headers of answers.
 *
 * Windows are opened as far as they go at the start, so that a server never waits for credit; what
 * the server grants is kept to. One thread; no call blocks but h2_connect().
 */
#ifndef LOAD_H2_H
#define LOAD_H2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

struct nghttp2_hd_inflater;
struct h2_connection;

/* Bytes the caller keeps until they are sent. */
struct h2_piece {
    const uint8_t *data;
    size_t n;
};

/* Of the caller, zeroed at first, at one place while it is open; a call at a time. */
struct h2_stream {
    struct h2_connection *connection;
    uint32_t id; /* 0: not open */
    bool half_closed, ended, answered, blocked;
    int64_t window;
    uint64_t unacknowledged; /* received since the last window update */
    struct h2_piece *pieces; /* a ring of those not sent yet */
    size_t first, n, room;
    size_t sent; /* of the first */
    struct buffer in;
    struct h2_stream *next_blocked;
    int status;      /* of gRPC, once there are trailers; else -1 */
    char about[200]; /* grpc-message */
};

struct h2_events {
    /* A whole message, valid during the call. */
    void (*message)(void *user, struct h2_stream *stream, const uint8_t *data, size_t n);
    /* The stream is closed and may be opened again, at once too. `status` of gRPC, -1 where the
     * server told none; `about` says more. */
    void (*closed)(void *user, struct h2_stream *stream, int status, const char *about);
    void *user;
};

struct h2_connection {
    int fd;
    char broken[256]; /* why it cannot go on; empty while it can */
    struct buffer in, out, block;
    bool settled;         /* the server's first SETTINGS are there */
    bool wants_out;       /* `out` waits for the socket */
    uint32_t max_streams; /* the server takes at once */
    uint32_t max_frame;
    int64_t window, first_window;
    uint64_t unacknowledged;
    uint32_t next_id;
    uint32_t block_stream; /* whose header block goes on in CONTINUATION frames, or 0 */
    bool block_ends;
    struct h2_stream **streams; /* by id, more than twice as many places as streams */
    uint32_t mask;
    struct h2_stream *blocked, **blocked_end; /* wait for a window, in turn */
    struct nghttp2_hd_inflater *inflater;
    const struct h2_events *events;
    const char *path; /* what `again` is for */
    char authority[128];
    uint32_t inserted; /* headers, into the table the server keeps of them */
    struct buffer again;
};

/* Connects to host:port or unix:path, and begins. Prints and ends the program where it cannot.
 * `streams` is how many will be open at most. */
void h2_connect(struct h2_connection *connection, const char *address, uint32_t streams,
                uint32_t max_frame, const struct h2_events *events);
void h2_fini(struct h2_connection *connection);

/* Sends the headers of a call; path is a literal. The stream has room for `room` messages that
 * wait. */
void h2_open(struct h2_stream *stream, struct h2_connection *connection, const char *path,
             size_t room);
/* A message with its prefix, kept by the caller until the stream has closed. `last`: nothing
 * follows. */
void h2_send(struct h2_stream *stream, const uint8_t *message, size_t n, bool last);
/* Nothing follows what was sent. */
void h2_end(struct h2_stream *stream);
void h2_stream_fini(struct h2_stream *stream);

/* Writes what the socket takes of what is to be sent. */
void h2_flush(struct h2_connection *connection);
/* Reads what is there, once, and calls the events. */
void h2_receive(struct h2_connection *connection);

#endif
