/* cuDNN's backend interface, by which convolutions go: descriptors with attributes, of which heuristics are asked for a plan.
 *
 * Here every question has one answer, a plan without a workspace. So whether the real library has an engine for a shape
 * cannot be seen. */
#include <stdio.h>
#include <stdlib.h>
#include <cudnn_graph.h>
#include <cudnn_version.h>
#include "pretended.h"

#define DESCRIPTOR_BYTES 256

/* The handle is one for this file and for cudnn.c. */
struct cudnnContext { cudaStream_t stream; };

size_t cudnnGetVersion(void) { return CUDNN_VERSION; }
size_t cudnnGetCudartVersion(void) { return CUDART_VERSION; }
const char *cudnnGetErrorString(cudnnStatus_t status) { return status ? "an error of the pretended cuDNN" : "CUDNN_STATUS_SUCCESS"; }
void cudnnGetLastErrorString(char *message, size_t room) { snprintf(message, room, "%s", ""); }

cudnnStatus_t cudnnCreate(cudnnHandle_t *out) {
    *out = new_object(sizeof **out);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t *stream) {
    *stream = handle->stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out) {
    (void)type;
    *out = new_object(DESCRIPTOR_BYTES);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
    free(descriptor);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    (void)descriptor;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void *elements) {
    (void)descriptor, (void)name, (void)type, (void)count, (void)elements;
    return CUDNN_STATUS_SUCCESS;
}

/* Of descriptors (engine configurations, plans) there is one; a number is 0; of all else there is none. */
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t wanted, int64_t *found, void *elements) {
    (void)descriptor, (void)name;
    int is_number = type == CUDNN_TYPE_INT64 && elements && wanted > 0;
    if (is_number)
        *(int64_t *)elements = 0;
    if (found)
        *found = is_number || type == CUDNN_TYPE_BACKEND_DESCRIPTOR;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t variants) {
    (void)plan, (void)variants;
    return library_kernel("cudnnConvolution", handle->stream) ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}
