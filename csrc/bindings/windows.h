// A window of the grid as Python gives it.
#pragma once

#include <pybind11/stl.h>

#include <array>

#include "cpu/window.h"

namespace imagen_fast {

// height, width, above, left, right, prefix
using WindowNumbers = std::array<std::int64_t, 6>;

inline Window window(const WindowNumbers& n) { return {n[0], n[1], n[2], n[3], n[4], n[5]}; }

}  // namespace imagen_fast
