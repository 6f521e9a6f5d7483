/* The wheels of the CUDA runtime lack this header, which belongs to nvcc. To a C compiler its words mean nothing. */
#ifndef PRETENDED_HOST_DEFINES_H
#define PRETENDED_HOST_DEFINES_H

#define __host__
#define __device__
#define __global__
#define __cudart_builtin__
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __inline_hint__
#define __specialization_static
#define __no_sanitize_memory
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define CUDA_CB

#endif
