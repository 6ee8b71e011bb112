#include "cpu/pixel_mse.h"

#include <pybind11/stl.h>

#include <array>

#include "bindings/registers.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

PixelMse problem(Address image, int image_dtype, std::array<std::int64_t, 4> shape,
                 std::array<std::int64_t, 4> strides, Address prediction, int dtype, std::int64_t rows,
                 std::int64_t patch, std::array<std::int64_t, 2> row_strides, Address index, Address keep,
                 bool normalise, float eps) {
    const ImageView view{pointer<const void>(image),
                         static_cast<DType>(image_dtype),
                         shape[1],
                         shape[2],
                         shape[3],
                         strides[0],
                         strides[1],
                         strides[2],
                         strides[3]};
    const PixelMse result{view,
                          pointer<const void>(prediction),
                          static_cast<DType>(dtype),
                          shape[0],
                          rows,
                          patch,
                          row_strides[0],
                          row_strides[1],
                          pointer<const std::int64_t>(index),
                          pointer<const bool>(keep),
                          normalise,
                          eps};
    check(result);
    return result;
}

}  // namespace

void register_pixel_mse(py::module_& m) {
    using release = py::call_guard<py::gil_scoped_release>;
    py::class_<PixelMse>(m, "PixelMse")
        .def(py::init(&problem), py::kw_only(), py::arg("image"), py::arg("image_dtype"), py::arg("shape"),
             py::arg("strides"), py::arg("prediction"), py::arg("dtype"), py::arg("rows"), py::arg("patch"),
             py::arg("row_strides"), py::arg("index"), py::arg("keep"), py::arg("normalise"), py::arg("eps"))
        .def(
            "forward",
            [](const PixelMse& p, Address loss, int threads) {
                return pixel_mse_forward(p, pointer<float>(loss), threads);
            },
            py::arg("loss"), py::arg("threads"), release())
        .def(
            "backward",
            [](const PixelMse& p, double d_loss, Address d_prediction, int threads) {
                pixel_mse_backward(p, d_loss, pointer<void>(d_prediction), threads);
            },
            py::arg("d_loss"), py::arg("d_prediction"), py::arg("threads"), release());
}

}  // namespace imagen_fast
