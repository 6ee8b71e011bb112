#include "cpu/gelu.h"

#include "bindings/registers.h"

namespace py = pybind11;

namespace imagen_fast {

void register_gelu(py::module_& m) {
    using release = py::call_guard<py::gil_scoped_release>;
    m.def(
        "gelu_forward",
        [](Address x, std::int64_t count, bool quick, Address y, int threads) {
            gelu_forward(pointer<const BFloat16>(x), count, quick, pointer<BFloat16>(y), threads);
        },
        py::kw_only(), py::arg("x"), py::arg("count"), py::arg("quick"), py::arg("y"), py::arg("threads"),
        release());
    m.def(
        "gelu_backward",
        [](Address d_y, Address x, std::int64_t count, bool quick, Address d_x, int threads) {
            gelu_backward(pointer<const BFloat16>(d_y), pointer<const BFloat16>(x), count, quick,
                          pointer<BFloat16>(d_x), threads);
        },
        py::kw_only(), py::arg("d_y"), py::arg("x"), py::arg("count"), py::arg("quick"), py::arg("d_x"),
        py::arg("threads"), release());
}

}  // namespace imagen_fast
