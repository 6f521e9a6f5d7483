/* Memory of the devices, which is the host's and is only reserved until somebody writes to it, and pinned memory.
 *
 * What is copied to a device, and between small places on it, can be read back. Kernels do not run, so that all they would
 * have written is zero, or what was there before. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "pretended.h"

#define PINNED (-1)
#define WORTH_COPYING (64u << 10) /* contents above this size never decide anything on the CPU: not moved inside a device */

struct block { char *start; size_t bytes; int device; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block *blocks;
static size_t count, room;
static size_t used[PRETENDED_MAX_DEVICES];

size_t pretended_used(int device) { return used[device]; }

static cudaError_t allocate(void **out, size_t bytes, int device) {
    if (!bytes)
        bytes = 1;
    *out = NULL;
    pthread_mutex_lock(&lock);
    cudaError_t error = device != PINNED && used[device] + bytes > memory_limit() ? cudaErrorMemoryAllocation : cudaSuccess;
    void *start = MAP_FAILED;
    if (!error) {
        start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        error = start == MAP_FAILED ? cudaErrorMemoryAllocation : cudaSuccess;
    }
    if (!error) {
        if (count == room) {
            room = room ? 2 * room : 1024;
            if (!(blocks = realloc(blocks, room * sizeof *blocks)))
                abort();
        }
        blocks[count++] = (struct block){start, bytes, device};
        if (device != PINNED)
            used[device] += bytes;
        *out = start;
    }
    pthread_mutex_unlock(&lock);
    if (!error)
        return cudaSuccess;
    note(OUT_OF_MEMORY, "cudaMalloc", bytes, device, NULL, 0);
    return fail(error);
}

static struct block *holding(const void *address) {
    for (size_t i = 0; i < count; i++)
        if ((const char *)address >= blocks[i].start && (const char *)address < blocks[i].start + blocks[i].bytes)
            return &blocks[i];
    return NULL;
}

static cudaError_t release(void *address) {
    if (!address)
        return cudaSuccess;
    pthread_mutex_lock(&lock);
    struct block *block = holding(address);
    if (block) {
        if (block->device != PINNED)
            used[block->device] -= block->bytes;
        munmap(block->start, block->bytes);
        *block = blocks[--count];
    }
    pthread_mutex_unlock(&lock);
    return block ? cudaSuccess : fail(cudaErrorInvalidValue);
}

enum place { PAGEABLE, PINNED_HOST, ON_DEVICE };

static enum place place_of(const void *address, int *device) {
    pthread_mutex_lock(&lock);
    struct block *block = holding(address);
    enum place place = !block ? PAGEABLE : block->device == PINNED ? PINNED_HOST : ON_DEVICE;
    *device = place == ON_DEVICE ? block->device : 0;
    pthread_mutex_unlock(&lock);
    return place;
}

/* ---- allocation */

cudaError_t cudaMalloc(void **out, size_t bytes) {
    cudaError_t error = forbid_in_capture("cudaMalloc");
    if (error)
        return error;
    note(ALLOCATE, "cudaMalloc", bytes, current_device(), NULL, 0);
    return allocate(out, bytes, current_device());
}

cudaError_t cudaFree(void *address) {
    cudaError_t error = forbid_in_capture("cudaFree");
    if (error)
        return error;
    if (address)
        note(FREE, "cudaFree", 0, current_device(), NULL, 0);
    return release(address);
}

cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t stream) {
    note(ALLOCATE, "cudaMallocAsync", bytes, device_of(stream), stream, 0);
    return allocate(out, bytes, device_of(stream));
}

cudaError_t cudaFreeAsync(void *address, cudaStream_t stream) {
    (void)stream;
    return release(address);
}

static cudaError_t pin(const char *name, void **out, size_t bytes) {
    cudaError_t error = forbid_in_capture(name);
    if (error)
        return error;
    note(PIN, name, bytes, current_device(), NULL, 0);
    return allocate(out, bytes, PINNED);
}

cudaError_t cudaMallocHost(void **out, size_t bytes) { return pin("cudaMallocHost", out, bytes); }

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags) {
    (void)flags;
    return pin("cudaHostAlloc", out, bytes);
}

cudaError_t cudaFreeHost(void *address) {
    cudaError_t error = forbid_in_capture("cudaFreeHost");
    return error ? error : release(address);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *total = memory_limit();
    size_t taken = used[current_device()];
    *free_bytes = taken < *total ? *total - taken : 0;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *address) {
    int device;
    enum place place = place_of(address, &device);
    memset(attributes, 0, sizeof *attributes);
    attributes->type = place == PAGEABLE ? cudaMemoryTypeUnregistered : place == PINNED_HOST ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    attributes->device = device;
    attributes->devicePointer = attributes->hostPointer = (void *)address;
    return cudaSuccess;
}

/* ---- copies and memsets */

struct journey { enum place from, to; int from_device, to_device; const char *name; };

static struct journey between(void *to, const void *from) {
    static const char *const NAMES[2][2] = {{"host to host", "host to device"}, {"device to host", "device to device"}};
    struct journey j;
    j.from = place_of(from, &j.from_device);
    j.to = place_of(to, &j.to_device);
    j.name = NAMES[j.from == ON_DEVICE][j.to == ON_DEVICE];
    return j;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    (void)kind;
    struct journey j = between(to, from);
    int pageable = j.from == PAGEABLE || j.to == PAGEABLE, device = device_of(stream);
    if (pageable && capture_of(stream))
        return break_capture("copy of pageable memory", cudaErrorStreamCaptureUnsupported);
    cudaError_t error;
    enum fate fate = put_into(stream, j.name, &error);
    if (fate == REFUSED)
        return error;
    note(pageable ? PAGEABLE_COPY : COPY, j.name, bytes, device, stream, fate == CAPTURED);
    int inside = j.from == ON_DEVICE && j.to == ON_DEVICE;
    if (fate == RUNS && (!inside || bytes <= WORTH_COPYING))
        memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    (void)kind;
    cudaError_t error = forbid_in_capture("cudaMemcpy");
    if (error)
        return error;
    note(SYNCHRONIZE, "cudaMemcpy", bytes, current_device(), NULL, 0);
    memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes, cudaStream_t stream) {
    (void)to_device, (void)from_device;
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    (void)to_pitch, (void)from_pitch;
    return cudaMemcpyAsync(to, from, width * height, kind, stream);
}

cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream) {
    int owner, device = device_of(stream);
    if (place_of(at, &owner) == ON_DEVICE && owner != device)
        note(WRONG_DEVICE, "memset of another device's memory", bytes, device, stream, 0);
    cudaError_t error;
    enum fate fate = put_into(stream, "memset", &error);
    if (fate == REFUSED)
        return error;
    note(MEMSET, "memset", bytes, device, stream, fate == CAPTURED);
    if (fate == RUNS && bytes <= WORTH_COPYING)
        memset(at, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *at, int value, size_t bytes) { return cudaMemsetAsync(at, value, bytes, NULL); }
