/* The record of what was asked of the devices, and how it is read: by ctypes (../gpu_log.py), or, for processes that one
 * cannot step into, from a file that each writes when it ends (PRETENDED_GPU_REPORTS names a folder). */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "pretended.h"

static const char *const KIND_NAMES[KINDS] = {
    "kernel", "graph launch", "memset", "copy", "collective",
    "synchronize", "pageable copy", "free",
    "allocate", "pin", "capture begin", "capture end",
    "illegal in capture", "outside capture", "bad launch", "wrong device", "out of memory",
    "not modelled",
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct record *records;
static size_t count, room;
static atomic_int reading;
static atomic_size_t totals[PRETENDED_MAX_DEVICES][KINDS]; /* always counted */

void note(enum kind kind, const char *name, size_t amount, int device, cudaStream_t stream, int capturing) {
    if (device >= 0 && device < PRETENDED_MAX_DEVICES)
        atomic_fetch_add(&totals[device][kind], 1);
    if (!reading)
        return;
    pthread_mutex_lock(&lock);
    if (count == room) {
        room = room ? 2 * room : 1 << 16;
        records = realloc(records, room * sizeof *records);
        if (!records)
            abort();
    }
    records[count++] = (struct record){kind, device, capturing, name, amount, (uintptr_t)stream};
    pthread_mutex_unlock(&lock);
}

void *new_object(size_t bytes) {
    void *object = calloc(1, bytes);
    if (!object)
        abort();
    return object;
}

/* What the build makes of every function that torch wants and no file here has. */
long pretended_not_modelled(const char *name) {
    note(NOT_MODELLED, name, 0, current_device(), NULL, 0);
    return 0;
}

/* ---- for readers */

void pretended_log(int on) { reading = on; }

void pretended_clear(void) {
    pthread_mutex_lock(&lock);
    count = 0;
    pthread_mutex_unlock(&lock);
}

size_t pretended_count(void) { return count; }
const struct record *pretended_record(size_t i) { return &records[i]; }
const char *pretended_kind(int kind) { return kind >= 0 && kind < KINDS ? KIND_NAMES[kind] : ""; }
size_t pretended_total(int device, int kind) { return totals[device][kind]; }

int pretended_physical(int device);

/* One line for each device and kind: its number on the machine, the kind, how often. */
__attribute__((destructor)) static void report(void) {
    const char *folder = getenv("PRETENDED_GPU_REPORTS");
    if (!folder)
        return;
    FILE *file = NULL;
    for (int device = 0; device < PRETENDED_MAX_DEVICES; device++)
        for (int kind = 0; kind < KINDS; kind++) {
            if (!totals[device][kind])
                continue;
            if (!file) {
                char path[4096];
                snprintf(path, sizeof path, "%s/%d", folder, (int)getpid());
                if (!(file = fopen(path, "w"))) {
                    fprintf(stderr, "pretended CUDA: no report in %s (%s)\n", path, strerror(errno));
                    return;
                }
            }
            fprintf(file, "%d\t%s\t%zu\n", pretended_physical(device), KIND_NAMES[kind], (size_t)totals[device][kind]);
        }
    if (file)
        fclose(file);
}
