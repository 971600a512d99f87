#include "pace.h"

#include "clock.h"

#define A_SECOND  UINT64_C(1000000000)
#define OF_LATE   INT64_C(100000000)
#define PIECES    3                /* as long as so many pieces: a quarter of a processor is left */
#define REST_MOST INT64_C(2000000) /* a piece that waited for the disk has rested already */

void plsi_pace_init(struct plsi_pace *pace)
{
    pace->turn_ns = 0;
    pace->called_ns = 0;
    atomic_init(&pace->called, false);
    pthread_mutex_init(&pace->lock, NULL);
}

void plsi_pace_fini(struct plsi_pace *pace)
{
    pthread_mutex_destroy(&pace->lock);
}

int64_t plsi_pace_turn(struct plsi_pace *pace, uint64_t bytes_per_second, size_t bytes)
{
    int64_t now = plsi_now_ns();
    pthread_mutex_lock(&pace->lock);
    int64_t turn = pace->turn_ns > now ? pace->turn_ns : now;
    pace->turn_ns = turn + (int64_t)((uint64_t)bytes * A_SECOND / bytes_per_second);
    pthread_mutex_unlock(&pace->lock);
    return turn;
}

int64_t plsi_pace_rest(struct plsi_pace *pace, int64_t piece_ns)
{
    int64_t now = plsi_now_ns();
    bool called = atomic_exchange(&pace->called, false);
    pthread_mutex_lock(&pace->lock);
    if (called) {
        pace->called_ns = now;
    }
    bool of_late = pace->called_ns > 0 && now - pace->called_ns < OF_LATE;
    pthread_mutex_unlock(&pace->lock);
    if (!of_late) {
        return 0;
    }
    return PIECES * piece_ns < REST_MOST ? PIECES * piece_ns : REST_MOST;
}
