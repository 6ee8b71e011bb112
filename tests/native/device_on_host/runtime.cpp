#include "runtime.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>

// A stream is its work, and how much of it was done; events are numbers of it.
struct CUstream_st {
    std::deque<device_on_host::Work> waiting;
    std::int64_t done = 0;
};
struct CUevent_st {
    CUstream_st* stream = nullptr;
    std::int64_t number = 0;
};

namespace device_on_host {

namespace {

std::recursive_mutex mutex;
Counts counted{};

using Lock = std::lock_guard<std::recursive_mutex>;

void run(cudaStream_t stream, std::int64_t until) {
    const Lock lock(mutex);
    for (; stream->done < until && !stream->waiting.empty(); ++stream->done) {
        Work work = std::move(stream->waiting.front());
        stream->waiting.pop_front();
        work();
    }
}

std::int64_t end_of(cudaStream_t stream) {
    return stream->done + static_cast<std::int64_t>(stream->waiting.size());
}

cudaError_t allocate(void** data, std::size_t size) {
    const Lock lock(mutex);
    *data = std::aligned_alloc(256, (size + 255) / 256 * 256);
    std::memset(*data, 0xa5, size);
    ++counted.allocations;
    ++counted.memories;
    return cudaSuccess;
}

cudaError_t release(void* data) {
    const Lock lock(mutex);
    counted.memories -= data != nullptr;
    std::free(data);
    return cudaSuccess;
}

}  // namespace

void enqueue(cudaStream_t stream, Work work) {
    const Lock lock(mutex);
    stream->waiting.push_back(std::move(work));
}

Counts counts() {
    const Lock lock(mutex);
    return counted;
}

}  // namespace device_on_host

using namespace device_on_host;

extern "C" {

cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "an error"; }
cudaError_t cudaMalloc(void** data, std::size_t size) { return allocate(data, size); }
cudaError_t cudaMallocHost(void** data, std::size_t size) { return allocate(data, size); }
cudaError_t cudaFree(void* data) { return release(data); }
cudaError_t cudaFreeHost(void* data) { return release(data); }

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind,
                            cudaStream_t stream) {
    enqueue(stream, [=] { std::memcpy(to, from, size); });
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    const Lock lock(mutex);
    *stream = new CUstream_st;
    ++counted.streams;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const Lock lock(mutex);
    delete stream;
    --counted.streams;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const Lock lock(mutex);
    run(stream, end_of(stream));
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    const Lock lock(mutex);
    *event = new CUevent_st;
    ++counted.events;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const Lock lock(mutex);
    delete event;
    --counted.events;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const Lock lock(mutex);
    *event = {stream, end_of(stream)};
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->stream) run(event->stream, event->number);
    return cudaSuccess;
}

}  // extern "C"
