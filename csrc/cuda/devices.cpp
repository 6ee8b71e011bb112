#include "cuda/devices.h"

#include <cuda_runtime.h>

namespace imagen_fast {

int device_count() {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    cudaGetLastError();  // leaves no error behind for the next call to find
    return 0;
}

}  // namespace imagen_fast
