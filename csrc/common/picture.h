#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace imagen_fast {

// A JPEG, or, with a width and a height, upright RGB pixels.
struct Picture {
    const std::uint8_t* data;
    std::size_t size;
    std::int64_t width = 0, height = 0;
};

// What is wrong with each picture; empty: nothing. Of such a picture the output is not written.
using Failures = std::vector<std::string>;

}  // namespace imagen_fast
