// The Python module _cuda. Its CUDA runtime is linked statically and the driver is looked for at the first
// call, so it imports on any machine.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "bindings/registers.h"
#include "cuda/normalise_images.h"

namespace py = pybind11;
using imagen_fast::Address;
using imagen_fast::pointer;

namespace {

void normalise(Address pixels, std::int64_t batch, std::int64_t height, std::int64_t width, int channels,
               const std::vector<float>& mean, const std::vector<float>& deviation, Address flip,
               Address planes, int dtype, Address stream) {
    const auto count = static_cast<std::size_t>(channels);
    if (channels < 1 || channels > 4 || mean.size() != count || deviation.size() != count)
        throw std::invalid_argument("mean and deviation need a value for each of 1 to 4 channels");
    imagen_fast::NormaliseImages images{pointer<const std::uint8_t>(pixels),
                                        pointer<const bool>(flip),
                                        batch,
                                        height,
                                        width,
                                        channels,
                                        {},
                                        {}};
    std::copy(mean.begin(), mean.end(), images.mean);
    std::copy(deviation.begin(), deviation.end(), images.deviation);
    imagen_fast::normalise_images(images, pointer<void>(planes), static_cast<imagen_fast::PlaneType>(dtype),
                                  stream);
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
    using release = py::call_guard<py::gil_scoped_release>;
    m.doc() = "The CUDA kernels of imagen_fast; use them through imagen_fast.native.";
    m.attr("compiled_architectures") = IMAGEN_FAST_CUDA_ARCHITECTURES;
    m.def("device_count", &imagen_fast::device_count, release());
    m.def("normalise_images", normalise, py::kw_only(), py::arg("pixels"), py::arg("batch"),
          py::arg("height"), py::arg("width"), py::arg("channels"), py::arg("mean"), py::arg("deviation"),
          py::arg("flip"), py::arg("planes"), py::arg("dtype"), py::arg("stream"), release());
    imagen_fast::register_view_decoder(m);
}
