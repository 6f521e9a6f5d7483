/* What the files of the pretended CUDA runtime share. ../README.md says what the whole can show and what it cannot.
 *
 * log.c        the record of all that was asked of the devices
 * devices.c    devices, their properties, errors
 * memory.c     allocations with a limit, copies, memsets
 * streams.c    streams and events, each on one device
 * graphs.c     captures with what they forbid, graphs
 * kernels.c    names of kernels, launches
 * cublas.c cublas_lt.c cudnn.c cudnn_backend.c nccl.c     a call of a library counts as one kernel or collective
 * driver.c nvml.c     libraries of their own: libcuda.so.1 and libnvidia-ml.so.1
 */
#ifndef PRETENDED_H
#define PRETENDED_H

#include <stddef.h>
#include <stdint.h>
#include <cuda_runtime_api.h>

#define PRETENDED_MAX_DEVICES 64

/* ---- log.c */

enum kind {
    /* work that is put into a stream */
    KERNEL, GRAPH_LAUNCH, MEMSET, COPY, COLLECTIVE,
    /* what makes the CPU wait for a device, or may */
    SYNCHRONIZE, PAGEABLE_COPY, FREE,
    /* the rest of what costs time */
    ALLOCATE, PIN, CAPTURE_BEGIN, CAPTURE_END,
    /* what a real device refuses, or does not do as meant */
    ILLEGAL_IN_CAPTURE, OUTSIDE_CAPTURE, BAD_LAUNCH, WRONG_DEVICE, OUT_OF_MEMORY,
    /* a library function without a model here: it did nothing and returned 0 */
    NOT_MODELLED,
    KINDS
};

struct record {
    int kind;
    int device;         /* as this process counts them */
    int capturing;      /* 1: it became part of a graph and did not run */
    const char *name;   /* kernel or function */
    size_t amount;      /* bytes; threads of a kernel; nodes of a graph */
    uintptr_t stream;
};

/* Counts it, and keeps it where a reader has switched the log on. */
void note(enum kind kind, const char *name, size_t amount, int device, cudaStream_t stream, int capturing);

/* ---- devices.c */

int current_device(void);
int device_count(void);
size_t memory_limit(void);
cudaError_t fail(cudaError_t error);    /* remembers an error for cudaGetLastError, and returns it */

/* ---- streams.c */

struct stream {
    int device;
    int blocking;                   /* waits for the legacy stream and makes it wait */
    unsigned long long capture;     /* the last capture it was part of; 0: none */
    int open;                       /* holds captured work that the capturing stream has not waited for */
};

/* The stream behind a handle; NULL for the legacy and the per-thread stream, which belong to the current device. */
struct stream *stream_of(cudaStream_t handle);
int device_of(cudaStream_t handle);

/* ---- graphs.c */

/* What happens to work put into a stream now. */
enum fate { RUNS, CAPTURED, REFUSED };

/* Decides it and keeps count; where it is REFUSED, *error says why. name: of the work, for the log. */
enum fate put_into(cudaStream_t stream, const char *name, cudaError_t *error);

/* cudaSuccess, or the error of a call that no capture tolerates; such a call breaks the capture. */
cudaError_t forbid_in_capture(const char *name);

/* Break the capture under way, because of `name`; returns the error. */
cudaError_t break_capture(const char *name, cudaError_t error);

/* The number of the capture that a stream is part of now; 0: of none. */
unsigned long long capture_of(cudaStream_t stream);
void join_capture(struct stream *stream);

/* ---- kernels.c */

/* One kernel of a library, such as a matrix product. Returns 0, or the CUDA error that refused it. */
cudaError_t library_kernel(const char *name, cudaStream_t stream);

/* ---- handles */

/* Room for the n bytes of an object that only we look into, all zero. Aborts where there is none. */
void *new_object(size_t bytes);

#endif
