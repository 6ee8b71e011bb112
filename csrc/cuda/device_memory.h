// Memory, streams and events of a device that are handed back when their owner goes.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/cuda_error.h"

namespace imagen_fast {

// Memory that grows and is used again, so that batches of any sizes end up with no allocation at all.
template <cudaError_t (*allocate)(void**, std::size_t), cudaError_t (*release)(void*)>
class GrowingMemory {
public:
    GrowingMemory() = default;
    ~GrowingMemory() { release(data_); }
    GrowingMemory(const GrowingMemory&) = delete;
    GrowingMemory& operator=(const GrowingMemory&) = delete;

    // At least so many bytes; what it held is lost where it grows, and nothing may still use it.
    std::uint8_t* reserve(std::int64_t bytes) {
        if (bytes > size_) {
            check_cuda(release(data_));
            data_ = nullptr;
            size_ = 0;
            // Some more than is asked for: the next batch is a little larger or smaller.
            const std::int64_t size = bytes + bytes / 4;
            check_cuda(allocate(&data_, static_cast<std::size_t>(size)));
            size_ = size;
        }
        return static_cast<std::uint8_t*>(data_);
    }
    template <class T>
    T* reserve_of(std::int64_t count) {
        return reinterpret_cast<T*>(reserve(count * std::int64_t{sizeof(T)}));
    }

private:
    void* data_ = nullptr;
    std::int64_t size_ = 0;
};

inline cudaError_t allocate_on_device(void** data, std::size_t bytes) { return cudaMalloc(data, bytes); }
inline cudaError_t allocate_pinned(void** data, std::size_t bytes) { return cudaMallocHost(data, bytes); }

using DeviceMemory = GrowingMemory<allocate_on_device, cudaFree>;
using PinnedMemory = GrowingMemory<allocate_pinned, cudaFreeHost>;

class DeviceStream {
public:
    // Waits for nobody, not even for the default stream.
    DeviceStream() { check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
    ~DeviceStream() { cudaStreamDestroy(stream_); }
    DeviceStream(const DeviceStream&) = delete;
    DeviceStream& operator=(const DeviceStream&) = delete;

    cudaStream_t get() const { return stream_; }
    std::uintptr_t number() const { return reinterpret_cast<std::uintptr_t>(stream_); }
    void wait() const { check_cuda(cudaStreamSynchronize(stream_)); }

private:
    cudaStream_t stream_ = nullptr;
};

// A point in a stream's work.
class DeviceEvent {
public:
    DeviceEvent() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
    // What was recorded is done by then.
    ~DeviceEvent() {
        cudaEventSynchronize(event_);
        cudaEventDestroy(event_);
    }
    DeviceEvent(const DeviceEvent&) = delete;
    DeviceEvent& operator=(const DeviceEvent&) = delete;

    void record(cudaStream_t stream) { check_cuda(cudaEventRecord(event_, stream)); }
    // Returns at once where nothing was recorded.
    void wait() const { check_cuda(cudaEventSynchronize(event_)); }

private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace imagen_fast
