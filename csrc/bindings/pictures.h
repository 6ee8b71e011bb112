// Images and views as they come from Python.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "bindings/registers.h"
#include "common/image_output.h"
#include "common/picture.h"
#include "common/view.h"

namespace imagen_fast {

using Integers = pybind11::array_t<std::int64_t, pybind11::array::c_style | pybind11::array::forcecast>;

// The bytes of JPEGs, or [height, width, 3] pixels; held until the call is over.
struct Held {
    explicit Held(const std::vector<pybind11::buffer>& buffers) {
        for (const pybind11::buffer& buffer : buffers) {
            infos.push_back(buffer.request());
            const pybind11::buffer_info& info = infos.back();
            const bool bytes = info.ndim == 1 && info.strides[0] == 1;
            const bool pixels = info.ndim == 3 && info.shape[0] > 0 && info.shape[1] > 0 &&
                                info.shape[2] == 3 && info.strides[2] == 1 && info.strides[1] == 3 &&
                                info.strides[0] == 3 * info.shape[1];
            if (info.itemsize != 1 || !(bytes || pixels))
                throw std::invalid_argument(
                    "an image must come as bytes, or as dense uint8 [height, width, 3]");
            pictures.push_back({static_cast<const std::uint8_t*>(info.ptr),
                                static_cast<std::size_t>(info.size), pixels ? info.shape[1] : 0,
                                pixels ? info.shape[0] : 0});
        }
    }
    std::vector<pybind11::buffer_info> infos;
    std::vector<Picture> pictures;
};

// Of nine numbers each; `places` must be as many.
inline std::vector<View> views_of(const Integers& table, const Integers& places, std::size_t count) {
    const auto rows = table.unchecked<2>();
    const auto wanted = static_cast<pybind11::ssize_t>(count);
    if (rows.shape(0) != wanted || rows.shape(1) != 9 || places.ndim() != 1 || places.shape(0) != wanted)
        throw std::invalid_argument("nine numbers and a place are needed for each image");
    std::vector<View> views;
    for (pybind11::ssize_t i = 0; i < rows.shape(0); ++i)
        views.push_back({{rows(i, 0), rows(i, 1), rows(i, 2), rows(i, 3)},
                         rows(i, 4),
                         rows(i, 5),
                         rows(i, 6),
                         rows(i, 7),
                         rows(i, 8) != 0});
    return views;
}

// `shape`: channels, height, width.
inline ImageOutput output_of(Address data, int type, const std::array<std::int64_t, 3>& shape,
                             std::int64_t patch, const std::array<float, 3>& scale,
                             const std::array<float, 3>& shift) {
    ImageOutput output{
        pointer<void>(data), static_cast<PixelType>(type), shape[0], shape[1], shape[2], patch, {}, {}};
    std::copy(scale.begin(), scale.end(), output.scale);
    std::copy(shift.begin(), shift.end(), output.shift);
    return output;
}

}  // namespace imagen_fast
