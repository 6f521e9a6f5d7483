/* cuBLAS: a matrix product is one kernel in the stream of its handle.
 *
 * Without the library's header, whose prototypes would ask for every argument of every product: of all of them only the
 * first is looked at. */
#include <stdlib.h>
#include "pretended.h"

struct handle { cudaStream_t stream; };
enum { SUCCESS = 0, EXECUTION_FAILED = 13 }; /* of cublasStatus_t */

static int run(const char *name, cudaStream_t stream) {
    return library_kernel(name, stream) ? EXECUTION_FAILED : SUCCESS;
}

int cublasCreate_v2(struct handle **out) {
    *out = new_object(sizeof **out);
    return SUCCESS;
}

int cublasDestroy_v2(struct handle *handle) {
    free(handle);
    return SUCCESS;
}

int cublasSetStream_v2(struct handle *handle, cudaStream_t stream) {
    handle->stream = stream;
    return SUCCESS;
}

int cublasGetMathMode(struct handle *handle, int *mode) {
    (void)handle;
    *mode = 0 /* CUBLAS_DEFAULT_MATH */;
    return SUCCESS;
}

int cublasGetPointerMode_v2(struct handle *handle, int *mode) {
    (void)handle;
    *mode = 0 /* CUBLAS_POINTER_MODE_HOST */;
    return SUCCESS;
}

#define ACCEPTED(name) int name(void) { return SUCCESS; }
ACCEPTED(cublasSetMathMode)
ACCEPTED(cublasSetPointerMode_v2)
ACCEPTED(cublasSetWorkspace_v2)

#define PRODUCT(name) int name(struct handle *handle) { return run(#name, handle->stream); }
PRODUCT(cublasSgemm_v2)
PRODUCT(cublasDgemm_v2)
PRODUCT(cublasGemmEx)
PRODUCT(cublasSgemmEx)
PRODUCT(cublasSgemmBatched)
PRODUCT(cublasSgemmStridedBatched)
PRODUCT(cublasDgemmStridedBatched)
PRODUCT(cublasGemmStridedBatchedEx)
PRODUCT(cublasSgemv_v2)
PRODUCT(cublasDgemv_v2)
PRODUCT(cublasSdot_v2)
PRODUCT(cublasDdot_v2)
PRODUCT(cublasDotEx)
