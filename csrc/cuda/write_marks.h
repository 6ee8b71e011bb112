// Marks in memory that a decoder is to fill: one that is still there was not written over. nvJPEG's batches
// may leave out an image and report success.
#pragma once

#include <cstdint>

#include "common/resample.h"

namespace imagen_fast {

struct MarkedMemory {
    std::uint8_t* data;  // at a multiple of 4 bytes
    std::int64_t bytes;  // up to 3 more may be written
};

constexpr int MARKS = 32;

IMAGEN_FAST_HOST_DEVICE inline std::uint32_t* mark_place(const MarkedMemory& memory, int number) {
    const std::int64_t last = memory.bytes > 4 ? (memory.bytes - 4) / 4 : 0;
    return reinterpret_cast<std::uint32_t*>(memory.data) + last * number / (MARKS - 1);
}

// No two alike: a photograph that holds one of them somewhere is decoded twice, no more.
IMAGEN_FAST_HOST_DEVICE inline std::uint32_t mark(int number) {
    return 0x9e3779b9u * (static_cast<std::uint32_t>(number) + 7u);
}

// `memories` are a table on the device. They raise std::runtime_error with CUDA's own words.
void set_marks(const MarkedMemory* memories, std::int64_t count, std::uintptr_t stream);
// found[i] = 1 where a mark is left in memory i, else 0; `found` is on the device.
void find_marks(const MarkedMemory* memories, std::int64_t count, std::uint8_t* found, std::uintptr_t stream);

}  // namespace imagen_fast
