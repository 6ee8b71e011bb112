#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace imagen_fast {

// Raises std::runtime_error with CUDA's own words.
inline void check_cuda(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

}  // namespace imagen_fast
