#include "cpu/decode_batch.h"

#include <pybind11/stl.h>

#include <array>
#include <utility>

#include "bindings/pictures.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

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
    const std::vector<View> wanted = views_of(views, places, images.size());
    const ImageOutput output = output_of(out, type, shape, patch, scale, shift);
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
