/* Captures of streams, with what is forbidden in them, and graphs, which are the number of their nodes.
 *
 * One capture at a time in a process; a second one beside it is refused, where the real runtime would allow it. */
#include <pthread.h>
#include "pretended.h"

static struct {
    int active, broken;
    unsigned long long id;          /* of the last one that was begun */
    enum cudaStreamCaptureMode mode;
    pthread_t owner;
    struct stream *origin;
    struct stream *streams[64];     /* all that take part */
    int members;
    size_t nodes;
    int device;
} capture;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread enum cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

struct graph { size_t nodes; int device; };

unsigned long long capture_of(cudaStream_t handle) {
    struct stream *stream = stream_of(handle);
    return capture.active && stream && stream->capture == capture.id ? capture.id : 0;
}

void join_capture(struct stream *stream) {
    pthread_mutex_lock(&lock);
    if (capture.members < (int)(sizeof capture.streams / sizeof *capture.streams)) {
        capture.streams[capture.members++] = stream;
        stream->capture = capture.id;
        stream->open = stream != capture.origin;
    }
    pthread_mutex_unlock(&lock);
}

cudaError_t break_capture(const char *name, cudaError_t error) {
    note(ILLEGAL_IN_CAPTURE, name, 0, capture.device, NULL, 1);
    capture.broken = 1;
    return fail(error);
}

/* Unsafe calls are forbidden to the thread that captures and, unless the capture or the thread says otherwise, to all. */
cudaError_t forbid_in_capture(const char *name) {
    if (!capture.active || thread_mode == cudaStreamCaptureModeRelaxed)
        return cudaSuccess;
    int mine = pthread_equal(capture.owner, pthread_self());
    if (mine ? capture.mode == cudaStreamCaptureModeRelaxed
             : capture.mode != cudaStreamCaptureModeGlobal || thread_mode != cudaStreamCaptureModeGlobal)
        return cudaSuccess;
    return break_capture(name, cudaErrorStreamCaptureUnsupported);
}

enum fate put_into(cudaStream_t handle, const char *name, cudaError_t *error) {
    struct stream *stream = stream_of(handle);
    if (stream && stream->device != current_device()) {
        note(WRONG_DEVICE, name, 0, stream->device, handle, 0);
        *error = fail(cudaErrorInvalidResourceHandle);
        return REFUSED;
    }
    if (!capture.active)
        return RUNS;
    if (!capture_of(handle)) {
        if (!stream && capture.origin->blocking) {
            *error = break_capture(name, cudaErrorStreamCaptureImplicit);
            return REFUSED;
        }
        /* Legal, but whoever does this while he captures seldom wants it: it runs once and is not part of the graph. */
        if (current_device() == capture.device)
            note(OUTSIDE_CAPTURE, name, 0, current_device(), handle, 0);
        return RUNS;
    }
    if (capture.broken) {
        *error = fail(cudaErrorStreamCaptureInvalidated);
        return REFUSED;
    }
    __sync_add_and_fetch(&capture.nodes, 1);
    stream->open = stream != capture.origin;
    return CAPTURED;
}

/* ---- captures */

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
    enum cudaStreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode) {
    struct stream *stream = stream_of(handle);
    if (!stream || capture.active) {
        note(ILLEGAL_IN_CAPTURE, stream ? "a second capture" : "capture of the legacy stream", 0, current_device(), handle, 0);
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    capture.id++;
    capture.mode = mode;
    capture.owner = pthread_self();
    capture.origin = stream;
    capture.device = stream->device;
    capture.members = capture.broken = 0;
    capture.nodes = 0;
    capture.active = 1;
    join_capture(stream);
    note(CAPTURE_BEGIN, "capture", 0, stream->device, handle, 0);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t *dependencies, const cudaGraphEdgeData *data, size_t count, enum cudaStreamCaptureMode mode) {
    (void)graph, (void)dependencies, (void)data, (void)count;
    return cudaStreamBeginCapture(stream, mode);
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *out) {
    *out = NULL;
    if (!capture.active || stream_of(handle) != capture.origin)
        return fail(cudaErrorInvalidValue);
    cudaError_t error = capture.broken ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
    for (int i = 0; i < capture.members && !error; i++)
        if (capture.streams[i]->open) {
            note(ILLEGAL_IN_CAPTURE, "work that was not joined", 0, capture.device, handle, 1);
            error = cudaErrorStreamCaptureUnjoined;
        }
    capture.active = 0;
    note(CAPTURE_END, error ? "broken capture" : "capture", capture.nodes, capture.device, handle, 0);
    if (error)
        return fail(error);
    struct graph *graph = new_object(sizeof *graph);
    *graph = (struct graph){capture.nodes, capture.device};
    *out = (cudaGraph_t)graph;
    return cudaSuccess;
}

static enum cudaStreamCaptureStatus status_of(cudaStream_t stream) {
    if (!capture_of(stream))
        return cudaStreamCaptureStatusNone;
    return capture.broken ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = status_of(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph, const cudaGraphNode_t **dependencies, const cudaGraphEdgeData **data, size_t *count) {
    *status = status_of(stream);
    if (id)
        *id = capture.id;
    if (graph)
        *graph = NULL;
    if (dependencies)
        *dependencies = NULL;
    if (data)
        *data = NULL;
    if (count)
        *count = 0;
    return cudaSuccess;
}

/* ---- graphs */

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    (void)nodes;
    *count = graph ? ((struct graph *)graph)->nodes : 0;
    return cudaSuccess;
}

cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t node, cudaGraphNode_t *dependencies, cudaGraphEdgeData *data, size_t *count) {
    (void)node, (void)dependencies, (void)data;
    *count = 0;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags) {
    (void)flags;
    struct graph *executable = new_object(sizeof *executable);
    *executable = *(struct graph *)graph;
    *out = (cudaGraphExec_t)executable;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags) {
    return cudaGraphInstantiate(out, graph, flags);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    struct graph *graph = (struct graph *)executable;
    cudaError_t error;
    if (graph->device != device_of(stream))
        note(WRONG_DEVICE, "graph of another device", 0, device_of(stream), stream, 0);
    enum fate fate = put_into(stream, "graph", &error);
    if (fate == REFUSED)
        return error;
    note(GRAPH_LAUNCH, "graph", graph->nodes, device_of(stream), stream, fate == CAPTURED);
    return cudaSuccess;
}

/* Not freed: some bytes each. */
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return (void)graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return (void)executable, cudaSuccess; }

cudaError_t cudaUserObjectCreate(cudaUserObject_t *out, void *object, cudaHostFn_t destroy, unsigned references, unsigned flags) {
    (void)object, (void)destroy, (void)references, (void)flags;
    *out = new_object(1);
    return cudaSuccess;
}
