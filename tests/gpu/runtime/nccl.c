/* NCCL without a transport: a collective gives each rank its own values back and is one collective in the log.
 *
 * Its header needs nvcc's, which wheels do not have, so that the few types are written out here. PRETENDED_NCCL_VERSION
 * comes from that header, too. */
#include <stdlib.h>
#include <string.h>
#include "pretended.h"

#ifndef PRETENDED_NCCL_VERSION
#define PRETENDED_NCCL_VERSION 23000
#endif

struct unique_id { char bytes[128]; };
struct communicator { int ranks, rank, device; };

int ncclGetVersion(int *version) { return *version = PRETENDED_NCCL_VERSION, 0; }
const char *ncclGetErrorString(int error) { return error ? "an error of the pretended NCCL" : "no error"; }
const char *ncclGetLastError(struct communicator *comm) { return (void)comm, ""; }
int ncclGetUniqueId(struct unique_id *id) { return memset(id, 1, sizeof *id), 0; }

int ncclCommInitRankConfig(struct communicator **out, int ranks, struct unique_id id, int rank, void *configuration) {
    (void)id, (void)configuration;
    *out = new_object(sizeof **out);
    **out = (struct communicator){ranks, rank, current_device()};
    return 0;
}

int ncclCommInitRank(struct communicator **out, int ranks, struct unique_id id, int rank) {
    return ncclCommInitRankConfig(out, ranks, id, rank, NULL);
}

int ncclCommCount(struct communicator *comm, int *ranks) { return *ranks = comm->ranks, 0; }
int ncclCommUserRank(struct communicator *comm, int *rank) { return *rank = comm->rank, 0; }
int ncclCommCuDevice(struct communicator *comm, int *device) { return *device = comm->device, 0; }
int ncclCommGetAsyncError(struct communicator *comm, int *error) { return (void)comm, *error = 0, 0; }

#define ACCEPTED(name) int name(void) { return 0; }
ACCEPTED(ncclGroupStart)
ACCEPTED(ncclGroupEnd)
ACCEPTED(ncclCommFinalize)
ACCEPTED(ncclCommDestroy)
ACCEPTED(ncclCommAbort)
ACCEPTED(ncclCommRegister)
ACCEPTED(ncclCommDeregister)

static size_t bytes_of(int type) {
    static const size_t BYTES[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1}; /* by ncclDataType_t */
    return type >= 0 && type < (int)(sizeof BYTES / sizeof *BYTES) ? BYTES[type] : 1;
}

/* `copies` times the values of this rank. */
static int collective(const char *name, const void *from, void *to, size_t bytes, int copies, struct communicator *comm, cudaStream_t stream) {
    if (comm->device != device_of(stream))
        note(WRONG_DEVICE, name, bytes, device_of(stream), stream, 0);
    cudaError_t error;
    enum fate fate = put_into(stream, name, &error);
    if (fate == REFUSED)
        return 1; /* ncclUnhandledCudaError */
    note(COLLECTIVE, name, bytes, device_of(stream), stream, fate == CAPTURED);
    for (int i = 0; i < copies && fate == RUNS; i++)
        memmove((char *)to + (size_t)i * bytes, from, bytes);
    return 0;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, struct communicator *comm, cudaStream_t stream) {
    (void)op;
    return collective("ncclAllReduce", from, to, count * bytes_of(type), 1, comm, stream);
}

int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, struct communicator *comm, cudaStream_t stream) {
    (void)root;
    return collective("ncclBroadcast", from, to, count * bytes_of(type), 1, comm, stream);
}

int ncclAllGather(const void *from, void *to, size_t count, int type, struct communicator *comm, cudaStream_t stream) {
    return collective("ncclAllGather", from, to, count * bytes_of(type), comm->ranks, comm, stream);
}
