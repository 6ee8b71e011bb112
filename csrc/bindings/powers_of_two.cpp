#include "cpu/powers_of_two.h"

#include "bindings/registers.h"

namespace py = pybind11;

namespace imagen_fast {

void register_powers_of_two(py::module_& m) {
    m.def(
        "powers_of_two",
        [](Address x, std::int64_t count, Address y, bool half, int repeats, int threads) {
            powers_of_two(pointer<const float>(x), count, pointer<float>(y), half, repeats, threads);
        },
        py::kw_only(), py::arg("x"), py::arg("count"), py::arg("y"), py::arg("half"), py::arg("repeats"),
        py::arg("threads"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace imagen_fast
