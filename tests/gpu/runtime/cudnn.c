/* cuDNN's older interface: descriptors, and batch norm, which is one kernel in the stream of the handle.
 *
 * Without the library's header, for the reason that cublas.c gives; convolutions are in cudnn_backend.c. */
#include <stdlib.h>
#include "pretended.h"

struct cudnnContext { cudaStream_t stream; };
enum { SUCCESS = 0, EXECUTION_FAILED = 5000 }; /* of cudnnStatus_t */
#define DESCRIPTOR_BYTES 256

#define DESCRIPTOR(kind)                                    \
    int cudnnCreate##kind##Descriptor(void **out) {         \
        *out = new_object(DESCRIPTOR_BYTES);                \
        return SUCCESS;                                     \
    }                                                       \
    int cudnnDestroy##kind##Descriptor(void *descriptor) {  \
        free(descriptor);                                   \
        return SUCCESS;                                     \
    }
DESCRIPTOR(Tensor)
DESCRIPTOR(Filter)
DESCRIPTOR(Convolution)
DESCRIPTOR(Activation)
DESCRIPTOR(Pooling)

int cudnnSetTensorNdDescriptor(void) { return SUCCESS; }

/* ---- batch norm */

#define KERNEL_OF(name)                                                              \
    int name(struct cudnnContext *handle) {                                          \
        return library_kernel(#name, handle->stream) ? EXECUTION_FAILED : SUCCESS;   \
    }
KERNEL_OF(cudnnBatchNormalizationForwardTrainingEx)
KERNEL_OF(cudnnBatchNormalizationBackwardEx)
KERNEL_OF(cudnnBatchNormalizationForwardInference)

#define SMALL 1024 /* bytes, where the real library asks for room of about that order */

int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void *handle, int mode, int ops, void *x, void *z, void *y, void *parameters, void *activation, size_t *bytes) {
    (void)handle, (void)mode, (void)ops, (void)x, (void)z, (void)y, (void)parameters, (void)activation;
    *bytes = SMALL;
    return SUCCESS;
}

int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void *handle, int mode, int ops, void *activation, void *x, size_t *bytes) {
    (void)handle, (void)mode, (void)ops, (void)activation, (void)x;
    *bytes = SMALL;
    return SUCCESS;
}

int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void *handle, int mode, int ops, void *x, void *y, void *dy, void *dz, void *dx, void *parameters, void *activation, size_t *bytes) {
    (void)handle, (void)mode, (void)ops, (void)x, (void)y, (void)dy, (void)dz, (void)dx, (void)parameters, (void)activation;
    *bytes = SMALL;
    return SUCCESS;
}
