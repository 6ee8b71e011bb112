#include "cuda/cuda_error.h"
#include "cuda/write_marks.h"

namespace imagen_fast {

namespace {

static_assert(MARKS == 32, "a warp has one for each of its threads");

__global__ void set(const MarkedMemory* __restrict__ memories) {
    const int number = static_cast<int>(threadIdx.x);
    // In small memory several share a place: the last one stays, whichever it is.
    *mark_place(memories[blockIdx.x], number) = mark(number);
}

__global__ void find(const MarkedMemory* __restrict__ memories, std::uint8_t* __restrict__ found) {
    const int number = static_cast<int>(threadIdx.x);
    const bool left = *mark_place(memories[blockIdx.x], number) == mark(number);
    const bool any = __any_sync(0xffffffffu, left);
    if (number == 0) found[blockIdx.x] = any;
}

}  // namespace

void set_marks(const MarkedMemory* memories, std::int64_t count, std::uintptr_t stream) {
    set<<<static_cast<unsigned>(count), MARKS, 0, reinterpret_cast<cudaStream_t>(stream)>>>(memories);
    check_cuda(cudaGetLastError());
}

void find_marks(const MarkedMemory* memories, std::int64_t count, std::uint8_t* found,
                std::uintptr_t stream) {
    find<<<static_cast<unsigned>(count), MARKS, 0, reinterpret_cast<cudaStream_t>(stream)>>>(memories, found);
    check_cuda(cudaGetLastError());
}

}  // namespace imagen_fast
