/* Work that is shared out over the threads of an OpenMP library. */
#pragma once

/* Does the `part`-th of `parts` shares of a piece of work; 0, or 1 where there was no memory for scratch. */
typedef int Work(const void *given, int part, int parts);

/* What the library offers: running a function in so many threads, and in each of them its number and how many there are. */
typedef struct {
    void (*run)(void (*function)(void *), void *given, unsigned threads, unsigned flags);
    int (*number)(void), (*size)(void);
} Team;

typedef struct {
    Work *work;
    const void *given;
    const Team *team;
    int parts, failed;
} Shared;

/* A thread's shares. The library may start fewer threads than it is asked for. */
static void do_shares(void *given) {
    Shared *s = given;
    for (int part = s->team->number(); part < s->parts; part += s->team->size())
        if (s->work(s->given, part, s->parts)) __atomic_store_n(&s->failed, 1, __ATOMIC_RELAXED);
}

/* All shares of a piece of work. */
int by_team(Work *work, const void *given, int parts, const Team *team) {
    Shared s = {work, given, team, parts, 0};
    team->run(do_shares, &s, (unsigned)parts, 0);
    return s.failed;
}
