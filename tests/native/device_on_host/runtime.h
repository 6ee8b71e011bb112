// A device that puts off what it is told for as long as it may: what waits for too little finds nothing done.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>

namespace device_on_host {

using Work = std::function<void()>;

// Work for when somebody waits for the stream.
void enqueue(cudaStream_t stream, Work work);

struct Counts {
    std::int64_t allocations, memories, streams, events;  // made at all; and alive
};
Counts counts();

}  // namespace device_on_host
