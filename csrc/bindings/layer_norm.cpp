#include "cpu/layer_norm.h"

#include "bindings/registers.h"

namespace py = pybind11;

namespace imagen_fast {

void register_layer_norm(py::module_& m) {
    using release = py::call_guard<py::gil_scoped_release>;
    py::class_<LayerNorm>(m, "LayerNorm")
        .def(py::init([](Address x, Address weight, Address bias, std::int64_t rows, std::int64_t width,
                         float eps) {
                 return LayerNorm{pointer<const BFloat16>(x),
                                  pointer<const BFloat16>(weight),
                                  pointer<const BFloat16>(bias),
                                  rows,
                                  width,
                                  eps};
             }),
             py::kw_only(), py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("rows"),
             py::arg("width"), py::arg("eps"))
        .def(
            "forward",
            [](const LayerNorm& norm, Address y, Address statistics, int threads) {
                layer_norm_forward(norm, pointer<BFloat16>(y), pointer<float>(statistics), threads);
            },
            py::kw_only(), py::arg("y"), py::arg("statistics"), py::arg("threads"), release())
        .def(
            "backward",
            [](const LayerNorm& norm, Address d_y, Address statistics, Address d_x, Address d_weight,
               Address d_bias, int threads) {
                layer_norm_backward(norm, pointer<const BFloat16>(d_y), pointer<const float>(statistics),
                                    pointer<BFloat16>(d_x), pointer<BFloat16>(d_weight),
                                    pointer<BFloat16>(d_bias), threads);
            },
            py::kw_only(), py::arg("d_y"), py::arg("statistics"), py::arg("d_x"), py::arg("d_weight"),
            py::arg("d_bias"), py::arg("threads"), release());
}

}  // namespace imagen_fast
