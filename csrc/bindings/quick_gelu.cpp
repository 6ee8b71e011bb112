#include "cpu/quick_gelu.h"

#include "bindings/registers.h"

namespace py = pybind11;

namespace imagen_fast {

void register_quick_gelu(py::module_& m) {
    using release = py::call_guard<py::gil_scoped_release>;
    m.def(
        "quick_gelu_forward",
        [](Address x, std::int64_t count, Address y, int threads) {
            quick_gelu_forward(pointer<const BFloat16>(x), count, pointer<BFloat16>(y), threads);
        },
        py::kw_only(), py::arg("x"), py::arg("count"), py::arg("y"), py::arg("threads"), release());
    m.def(
        "quick_gelu_backward",
        [](Address d_y, Address x, std::int64_t count, Address d_x, int threads) {
            quick_gelu_backward(pointer<const BFloat16>(d_y), pointer<const BFloat16>(x), count,
                                pointer<BFloat16>(d_x), threads);
        },
        py::kw_only(), py::arg("d_y"), py::arg("x"), py::arg("count"), py::arg("d_x"), py::arg("threads"),
        release());
}

}  // namespace imagen_fast
