/* Streams and events. They do nothing in time, since all work is done at once; what counts is on which device they are,
 * who waits for them, and how captures spread over them. */
#include "pretended.h"

struct event {
    struct stream *stream;          /* where it was last recorded; NULL: in a legacy stream or never */
    unsigned long long capture;     /* and in which capture; 0: in none */
    int recorded;
};

struct stream *stream_of(cudaStream_t handle) {
    return handle == NULL || handle == cudaStreamLegacy || handle == cudaStreamPerThread ? NULL : (struct stream *)handle;
}

int device_of(cudaStream_t handle) {
    struct stream *stream = stream_of(handle);
    return stream ? stream->device : current_device();
}

/* ---- streams */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority) {
    (void)priority;
    struct stream *stream = new_object(sizeof *stream);
    stream->device = current_device();
    stream->blocking = !(flags & cudaStreamNonBlocking);
    *out = (cudaStream_t)stream;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) { return cudaStreamCreateWithPriority(out, flags, 0); }
cudaError_t cudaStreamCreate(cudaStream_t *out) { return cudaStreamCreateWithPriority(out, cudaStreamDefault, 0); }

/* Not freed: some bytes each, and an event may still name it. */
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    (void)stream;
    return cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
    (void)stream;
    *priority = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

static cudaError_t wait_for(const char *name, cudaStream_t stream) {
    cudaError_t error = forbid_in_capture(name);
    if (!error)
        note(SYNCHRONIZE, name, 0, device_of(stream), stream, 0);
    return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return wait_for("cudaStreamSynchronize", stream); }
cudaError_t cudaDeviceSynchronize(void) { return wait_for("cudaDeviceSynchronize", NULL); }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return (void)stream, forbid_in_capture("cudaStreamQuery"); }

/* ---- events */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
    (void)flags;
    *out = (cudaEvent_t)new_object(sizeof(struct event));
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out) { return cudaEventCreateWithFlags(out, cudaEventDefault); }

cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t stream, unsigned flags) {
    struct event *event = (struct event *)handle;
    event->recorded = 1;
    event->stream = stream_of(stream);
    event->capture = flags & cudaEventRecordExternal ? 0 : capture_of(stream);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

/* A stream that waits for captured work becomes part of the capture; a captured one may wait for nothing else. */
cudaError_t cudaStreamWaitEvent(cudaStream_t waiting, cudaEvent_t handle, unsigned flags) {
    struct event *event = (struct event *)handle;
    unsigned long long inside = capture_of(waiting);
    if (!event->recorded || flags & cudaEventWaitExternal)
        return cudaSuccess;
    int captured = event->capture && event->stream && capture_of((cudaStream_t)event->stream) == event->capture;
    if (inside && !captured)
        return break_capture("wait for work outside the capture", cudaErrorStreamCaptureIsolation);
    if (!captured)
        return cudaSuccess;
    if (!inside) {
        if (!stream_of(waiting))
            return break_capture("legacy stream in a capture", cudaErrorStreamCaptureImplicit);
        join_capture(stream_of(waiting));
    }
    if (event->stream != stream_of(waiting))
        event->stream->open = 0;
    return cudaSuccess;
}

static cudaError_t ask(const char *name, cudaEvent_t handle) {
    struct event *event = (struct event *)handle;
    if (event->capture && event->stream && capture_of((cudaStream_t)event->stream) == event->capture)
        return break_capture(name, cudaErrorCapturedEvent);
    return forbid_in_capture(name);
}

cudaError_t cudaEventQuery(cudaEvent_t event) { return ask("cudaEventQuery", event); }

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    cudaError_t error = ask("cudaEventSynchronize", event);
    if (!error)
        note(SYNCHRONIZE, "cudaEventSynchronize", 0, current_device(), NULL, 0);
    return error;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    (void)start, (void)end;
    *milliseconds = 1;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    (void)event; /* not freed, as streams */
    return cudaSuccess;
}
