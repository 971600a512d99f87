/*
 * Callers that fall silent: streams that wait for their peer, and what happens when it takes too
 * long.
 *
 * A stream arms its timer before it waits and disarms it when something came. Whoever takes a timer
 * out of the watch owns the stream's next step: disarm, or the watch, which calls `expired`; never
 * both.
 */
#ifndef PAYLOADSTORED_IDLE_H
#define PAYLOADSTORED_IDLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct psd_idle {
    void (*expired)(struct psd_idle *idle); /* on the watch's thread; must not wait */
    int64_t deadline_ms;                    /* from here on private */
    bool armed;
    struct psd_idle *next, *previous;
};

struct psd_idle_watch {
    unsigned timeout_ms;  /* the same for all, so that the list is in order of deadlines */
    pthread_mutex_t lock; /* a leaf; guards what follows, and every armed timer */
    pthread_cond_t changed;
    struct psd_idle head; /* of a ring */
    bool stopping;
    pthread_t thread;
};

/* By the monotonic clock. */
int64_t psd_now_ms(void);

/* 0, or -1 where there is no thread to be had. */
int psd_idle_watch_init(struct psd_idle_watch *watch, unsigned timeout_ms);
/* No timer may be armed any more. */
void psd_idle_watch_fini(struct psd_idle_watch *watch);

void psd_idle_arm(struct psd_idle_watch *watch, struct psd_idle *idle);
/* False where the watch was quicker: `expired` has been or is being called. */
bool psd_idle_disarm(struct psd_idle_watch *watch, struct psd_idle *idle);

#endif
