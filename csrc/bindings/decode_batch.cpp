#include "cpu/decode_batch.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <utility>

#include "bindings/registers.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

using Integers = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>;

// The bytes of JPEGs, or [height, width, 3] pixels; held until the call is over.
struct Held {
    explicit Held(const std::vector<py::buffer>& buffers) {
        for (const py::buffer& buffer : buffers) {
            infos.push_back(buffer.request());
            const py::buffer_info& info = infos.back();
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
    std::vector<py::buffer_info> infos;
    std::vector<Picture> pictures;
};

std::pair<std::vector<std::pair<std::int64_t, std::int64_t>>, Failures> sizes(
    const std::vector<py::buffer>& images, std::int64_t most_pixels, int threads) {
    const Held held(images);
    std::vector<JpegSize> found;
    Failures failures;
    {
        py::gil_scoped_release release;
        failures = picture_sizes(held.pictures, found, most_pixels, threads);
    }
    std::vector<std::pair<std::int64_t, std::int64_t>> sizes;
    for (const JpegSize& size : found) sizes.emplace_back(size.width, size.height);
    return {std::move(sizes), std::move(failures)};
}

Failures decode(const std::vector<py::buffer>& images, const Integers& views, const Integers& places,
                int filter, double least_pixels, Address out, int type, std::array<std::int64_t, 3> shape,
                std::int64_t patch, std::array<float, 3> scale, std::array<float, 3> shift, int threads) {
    const Held held(images);
    const auto rows = views.unchecked<2>();
    const auto count = static_cast<py::ssize_t>(images.size());
    if (rows.shape(0) != count || rows.shape(1) != 9 || places.ndim() != 1 || places.shape(0) != count)
        throw std::invalid_argument("nine numbers and a place are needed for each image");
    std::vector<View> wanted;
    for (py::ssize_t i = 0; i < rows.shape(0); ++i)
        wanted.push_back({{rows(i, 0), rows(i, 1), rows(i, 2), rows(i, 3)},
                          rows(i, 4),
                          rows(i, 5),
                          rows(i, 6),
                          rows(i, 7),
                          rows(i, 8) != 0});
    ImageOutput output{
        pointer<void>(out), static_cast<PixelType>(type), shape[0], shape[1], shape[2], patch, {}, {}};
    std::copy(scale.begin(), scale.end(), output.scale);
    std::copy(shift.begin(), shift.end(), output.shift);
    const std::int64_t bytes = shape[0] * shape[1] * shape[2] * size_of(output.type);
    py::gil_scoped_release release;
    return decode_batch(held.pictures, wanted, {static_cast<Filter>(filter), least_pixels}, output, bytes,
                        places.data(), threads);
}

}  // namespace

void register_decode_batch(py::module_& m) {
    m.def("picture_sizes", sizes, py::arg("images"), py::arg("most_pixels"), py::arg("threads"));
    m.def("decode_batch", decode, py::kw_only(), py::arg("images"), py::arg("views"), py::arg("places"),
          py::arg("filter"), py::arg("least_pixels"), py::arg("out"), py::arg("type"), py::arg("shape"),
          py::arg("patch"), py::arg("scale"), py::arg("shift"), py::arg("threads"));
}

}  // namespace imagen_fast
